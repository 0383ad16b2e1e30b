"""The verb ``fix``, from requests to a tested patch: split, derive, fit, build, test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from patchc.errors import UnfixedError
from patchc.escaping import visible_json
from patchc.evaluation.trials import decode_trial
from patchc.files import copy_file, staged_file
from patchc.fixing.fix_options import FixOptions
from patchc.fixing.fix_report import Comparison, Development, Figures, FixReport
from patchc.fixing.job import Job, open_job
from patchc.fixing.plan import FixPlan, plan
from patchc.fixing.split import Files
from patchc.fixing.stages import (
    PATCH,
    RECIPE,
    Result,
    derived_stage,
    encode_fitted,
    files_for_page,
    fitted_stage,
    reading_result,
    seconds_of,
    tested_stage,
)
from patchc.fixing.verdict import give_verdict
from patchc.formats import open_patch
from patchc.hub_models import takes_models
from patchc.paths import PathLike
from patchc.progress import Progress, ignore_progress
from patchc.recipe import checks
from patchc.report_page.report import write_page
from patchc.reserved import reserved
from patchc.stages import file_digest
from patchc.system_errors import storage_errors
from patchc.version import __version__

if TYPE_CHECKING:
    from patchc.verbs.fit import FitReport

_REPORT, _PAGE = "report.json", "report.html"


@takes_models("base")
def fix(
    base: PathLike,
    out: PathLike,
    *,
    harmful: Files,
    harmless: Files,
    utility: Files | None = None,
    reference: PathLike | None = None,
    options: FixOptions | None = None,
    max_memory: int | None = None,
    progress: Progress = ignore_progress,
) -> FixReport:
    """Make a patch that lowers harm and over-refusal, and test it on requests held out.

    Each set is split into development and test requests; near-duplicates and groups stay together.
    A change is derived from a share of the development requests, and its scales are fitted on all
    of them. Then the patch is built, and base and patched model are asked the test requests.
    ``out`` gets ``fix.patchc``, ``recipe.toml``, ``report.json`` and the page ``report.html``. The
    page counts the replies that changed, and shows none (:func:`patchc.report` does).

    Every stage is kept in ``out/work`` and made again only when its inputs have changed. The same
    call continues an interrupted one, and gives the same patch.

    Memory: that of :func:`patchc.derive` and of :func:`patchc.fit`, one after the other, each
    within ``max_memory``; and for the test the model. Disk: in ``out`` the retained entries of each
    derived component, 4 bytes for the weight and, where the recipe ranks, 4 for the score (8 per
    parameter if it looks at every entry), while it derives its scratch files, and for the test a
    copy of the model in the system's temporary folder.

    Args:
        base: the aligned model's folder, with config, tokenizer and chat template.
        out: the folder of the results: new, empty, or made by an earlier fix.
        harmful: requests that should be refused, as for :func:`patchc.evaluate`: a file to split,
            or a pair of files with development and test requests. The objectives "pair" and "npo"
            learn from their responses.
        harmless: requests that should be answered, some of them similar to harmful ones.
        utility: questions with accepted answers.
        reference: a UTF-8 text to take the perplexity of.
        options: None means the defaults.
        max_memory: bytes of memory that the process may take while it derives and fits; None means
            four fifths of what is free.
        progress: called with requests, steps and parameters done.

    Raises:
        UnfixedError: no point of the fit may become the patch. ``report.json`` is written all the
            same, and the error carries the :class:`~patchc.fixing.fix_report.FixReport`.
        EvaluateError, DeriveError: requests, judge or base leave nothing to learn.
        OutputError: ``out`` has content that no fix made.
        InUseError: another fix works in ``out``; says which.
        UsageError: an option cannot be met.
        MissingExtraError: torch, transformers or SciPy is not installed.
        and what :func:`patchc.derive`, :func:`patchc.fit` and :func:`patchc.evaluate` raise.
    """
    if max_memory is not None:
        checks.count("max_memory", max_memory)
    job = open_job(base, out, harmful, harmless, utility, reference, options)
    job.begin()
    with reserved(job.work, job.out):
        return _run(job, max_memory, progress)


@takes_models("base")
def plan_fix(
    base: PathLike,
    out: PathLike,
    *,
    harmful: Files,
    harmless: Files,
    utility: Files | None = None,
    reference: PathLike | None = None,
    options: FixOptions | None = None,
) -> FixPlan:
    """Check the inputs as :func:`fix` does, and compute what it would do; nothing is written.

    Raises:
        PatchcError: what :func:`fix` raises before its first stage.
    """
    return plan(open_job(base, out, harmful, harmless, utility, reference, options))


def _run(job: Job, max_memory: int | None, progress: Progress) -> FixReport:
    split = job.stages.run("split", job.requests.inputs, job.requests.write)
    derived = derived_stage(job, max_memory, progress)
    try:
        fitted = fitted_stage(job, split, derived, max_memory, progress)
    except UnfixedError as error:
        unfixed: FitReport = error.report  # type: ignore[assignment]
        development = _development(job, encode_fitted(unfixed.fitted))
        report = _report(job, development, None, None)
        _publish(job, report, None)
        raise UnfixedError(str(error), report) from error
    tested = tested_stage(job, split, fitted, progress)
    with reading_result(fitted) as found:
        development = _development(job, found)
    with reading_result(tested) as figures:
        test = _test(job, figures)
    report = _report(job, development, test, fitted / PATCH)
    _publish(job, report, fitted)
    return report


def _development(job: Job, fitted: Result) -> Development:
    return Development.of(fitted, job.requests.request_sets("development"))


def _test(job: Job, tested: Result) -> Comparison:
    asked = job.requests.request_sets("test")
    return Comparison.of(
        *(Figures.of(decode_trial(tested[name]), asked) for name in ("base", "patched"))
    )


def _report(
    job: Job, development: Development, test: Comparison | None, patch: Path | None
) -> FixReport:
    options, requests = job.options, job.requests
    patch_bytes = patch.stat().st_size if patch else 0
    # Without a patch, the folder may still have the stages of an earlier one.
    stale = () if patch else ("fitted", "tested")
    return FixReport(
        version=__version__,
        base=job.base,
        base_digest=job.digest,
        result_digest=_result_digest(patch) if patch else "",
        objective=options.derive.objective,
        judge=options.asking.judge_name,
        seed=options.seed,
        requests=requests.splits,
        data=requests.digests("test"),
        learned=job.learned,
        development=development,
        test=test,
        verdict=give_verdict(development, test, options.fit.limits),
        warnings=job.warnings,
        out=job.out / PATCH if patch else None,
        recipe=job.out / RECIPE if patch else None,
        patch_bytes=patch_bytes,
        model_bytes=job.nbytes,
        share=patch_bytes / job.nbytes,
        seconds={name: took for name, took in seconds_of(job).items() if name not in stale},
        page=job.out / _PAGE if patch else None,
    )


def _result_digest(patch: Path) -> str:
    with open_patch(patch) as opened:
        return opened.index.result_digest.hex()


def _publish(job: Job, report: FixReport, fitted: Path | None) -> None:
    """Write the results to ``out``, each completely or not at all; the patch only if it changed."""
    out = job.out
    if fitted is None:
        for target in (out / PATCH, out / RECIPE, out / _PAGE):
            with reserved(target, target), storage_errors(target, "remove"):
                target.unlink(missing_ok=True)
    else:
        for name in (PATCH, RECIPE):
            _copy_if_changed(fitted / name, out / name)
    text = visible_json(json.dumps(report.to_json(), indent=2, allow_nan=False)) + "\n"
    with staged_file(out / _REPORT, replace=True) as staging:
        staging.write_text(text, encoding="utf-8")
    if report.page:
        results = [out / _REPORT, *files_for_page(job)]
        write_page(out / PATCH, results, report.page)


def _copy_if_changed(source: Path, target: Path) -> None:
    if not target.is_file() or file_digest(target) != file_digest(source):
        with staged_file(target, replace=True) as staging:
            copy_file(source, staging)
