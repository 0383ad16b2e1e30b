"""From requests to a tested patch: split, derive, fit, build, test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from patchc.errors import UnfixedError
from patchc.evaluation.judges import open_judge
from patchc.evaluation.requests import SetName
from patchc.evaluation.trials import decode_trial
from patchc.files import copy_file, staged_file, storage_errors
from patchc.fitting.fit_options import unmeasured
from patchc.fixing.fix_options import FixOptions
from patchc.fixing.job import Job, open_job
from patchc.fixing.plan import FixPlan, count_learned, plan
from patchc.fixing.report import Comparison, Development, Figures, FixReport
from patchc.fixing.split import Files, request_sets
from patchc.fixing.stages import (
    PATCH,
    RECIPE,
    Found,
    derived_stage,
    encode_fitted,
    fitted_stage,
    found_in,
    seconds_of,
    split_stage,
    tested_stage,
)
from patchc.fixing.verdict import give_verdict
from patchc.progress import Progress, ignore_progress
from patchc.stages import file_digest
from patchc.version import __version__

if TYPE_CHECKING:
    from patchc.verbs.fit import FitReport

PathLike = str | os.PathLike[str]

REPORT = "report.json"


def fix(
    base: PathLike,
    out: PathLike,
    *,
    harmful: Files,
    harmless: Files,
    utility: Files | None = None,
    reference: PathLike | None = None,
    options: FixOptions | None = None,
    progress: Progress = ignore_progress,
) -> FixReport:
    """Make a patch that lowers harm and over-refusal, and test it on requests held out.

    Each set is split into development and test, near-duplicates and groups kept together. From a
    part of development a change is derived; on all of it the scales are fitted; the patch is built,
    and base and patched model are asked the test requests. ``out`` gets ``fix.patchc``,
    ``recipe.toml`` and ``report.json``.

    Every stage is kept in ``out/work`` and made again only when its inputs have changed. The same
    call goes on where an earlier one was interrupted, and gives the same patch.

    Memory: that of :func:`patchc.derive` and of :func:`patchc.fit`, one after the other. Disk: in
    ``out`` 8 bytes a parameter for each derived model; for the test, a copy of the model in the
    system's temporary folder.

    Args:
        base: the aligned model's folder, with config, tokenizer and chat template.
        out: the folder of the results: new, empty, or one that an earlier fix began.
        harmful: requests that should be refused, as for :func:`patchc.evaluate`: a file to split,
            or a pair of files to take as development and test. Objectives "pair" and "npo" learn
            from their responses.
        harmless: requests that should be answered, look-alikes among them.
        utility: questions with accepted answers.
        reference: a UTF-8 text to take the perplexity of.
        options: None means the defaults.
        progress: called with requests, steps and parameters done.

    Raises:
        UnfixedError: no point of the fit may be a patch. ``report.json`` is written all the same,
            and the error carries the :class:`~patchc.fixing.report.FixReport`.
        EvaluateError, DeriveError: requests, judge or base give nothing to learn from.
        OutputError: ``out`` holds something that no fix began.
        UsageError: an option cannot be met.
        MissingExtraError: torch, transformers or SciPy is not installed.
        and what :func:`patchc.derive`, :func:`patchc.fit` and :func:`patchc.evaluate` raise.
    """
    job = _open(base, out, harmful, harmless, utility, reference, options)
    job.begin()
    split = split_stage(job)
    derived = derived_stage(job, progress)
    try:
        fitted = fitted_stage(job, split, derived, progress)
    except UnfixedError as error:
        found: FitReport = error.report  # type: ignore[assignment]
        report = _report(job, encode_fitted(found.fitted), None, None)
        _publish(job.out, report, None)
        raise UnfixedError(str(error), report) from error
    tested = tested_stage(job, split, fitted, progress)
    report = _report(job, found_in(fitted), found_in(tested), fitted / PATCH)
    _publish(job.out, report, fitted)
    return report


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
    """Check the inputs as :func:`fix` does, and say what it would do; nothing is written.

    Raises:
        PatchcError: what :func:`fix` raises before its first stage.
    """
    return plan(_open(base, out, harmful, harmless, utility, reference, options))


def _open(
    base: PathLike,
    out: PathLike,
    harmful: Files,
    harmless: Files,
    utility: Files | None,
    reference: PathLike | None,
    options: FixOptions | None,
) -> Job:
    files: dict[SetName, Files] = {"harmful": harmful, "harmless": harmless}
    if utility is not None:
        files["utility"] = utility
    text = Path(reference) if reference else None
    options = options or FixOptions()
    unmeasured(options.fit.limits, utility is not None, reference is not None)
    open_judge(options.asking)
    return open_job(Path(base), Path(out), files, text, options)


def _report(job: Job, fitted: Found, tested: Found | None, patch: Path | None) -> FixReport:
    options = job.options
    development = Development.of(fitted, request_sets(job.parts.development))
    test = _test(job, tested) if tested else None
    patch_bytes = patch.stat().st_size if patch else 0
    return FixReport(
        version=__version__,
        base=job.base,
        base_digest=job.digest,
        objective=options.derive.objective,
        judge=options.asking.judge_name,
        seed=options.seed,
        requests=job.parts.splits,
        learned=count_learned(job),
        development=development,
        test=test,
        verdict=give_verdict(development, test, options.fit.limits),
        warnings=job.warnings,
        out=job.out / PATCH if patch else None,
        recipe=job.out / RECIPE if patch else None,
        patch_bytes=patch_bytes,
        model_bytes=job.nbytes,
        share=patch_bytes / job.nbytes,
        seconds=_seconds(job, patch),
    )


def _test(job: Job, tested: Found) -> Comparison:
    requests = request_sets(job.parts.test)
    base, patched = (
        Figures.of(decode_trial(tested[name]), requests) for name in ("base", "patched")
    )
    return Comparison.of(base, patched)


def _seconds(job: Job, patch: Path | None) -> dict[str, float]:
    """Without a patch, the stages of an earlier one may still be there; they are left out."""
    stale = () if patch else ("fitted", "tested")
    return {name: took for name, took in seconds_of(job).items() if name not in stale}


def _publish(out: Path, report: FixReport, fitted: Path | None) -> None:
    """Bring the results to ``out``: each whole or not at all, and only what has changed."""
    for name in (PATCH, RECIPE, REPORT):
        for leftover in out.glob(f".{name}.*.partial"):
            leftover.unlink(missing_ok=True)
    for name in (PATCH, RECIPE):
        if fitted is None:
            with storage_errors(out / name, "remove"):
                (out / name).unlink(missing_ok=True)
        else:
            _bring(fitted / name, out / name)
    with staged_file(out / REPORT) as staging:
        staging.write_text(report.text(), encoding="utf-8")


def _bring(source: Path, target: Path) -> None:
    if target.is_file() and file_digest(target) == file_digest(source):
        return
    with staged_file(target) as staging:
        copy_file(source, staging)
