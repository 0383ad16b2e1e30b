"""Measure models on harmful, harmless and utility requests, without and with a patch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from patchc.checkpoint import open_checkpoint, refuse_single_file
from patchc.errors import (
    AlreadyPatchedError,
    PartlyPatchedError,
    UsageError,
    WrongBaseError,
    import_errors,
)
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.harness import check_harness, run_tasks
from patchc.evaluation.judges import check_judge_is_known_by_name, open_judge
from patchc.evaluation.measure import Evaluation, Setup, measure
from patchc.evaluation.paired import Change, check_scipy, compare
from patchc.evaluation.records import read_text
from patchc.evaluation.replies_from_files import read_replies
from patchc.evaluation.requests import read_request_sets
from patchc.evaluation.results import open_results
from patchc.evaluation.turns import TurnsReport
from patchc.formats import open_patch
from patchc.patching.code_files import refuse_code
from patchc.paths import PathLike, listed
from patchc.progress import Progress, ignore_progress
from patchc.signing.trust import ANYBODY, Trust, demand_trust
from patchc.stages import file_digest
from patchc.verbs.apply import apply
from patchc.verbs.verify import verify


@dataclass(frozen=True)
class EvaluateReport:
    """What was measured: one entry per model, each followed by one with the patch applied.

    Attributes:
        models: what was measured.
        judge: the judge's name.
        requests: how many requests each set has.
        changes: by the name of each patched model, how its rates differ from those of the unpatched
            model (:func:`~patchc.evaluation.paired.compare`).
        data: BLAKE3 of the file of each set, in hexadecimal.
        turns: what a chain of patches does by category of harmful request; None without a chain.
    """

    models: tuple[Evaluation, ...]
    judge: str
    requests: dict[str, int]
    changes: dict[str, dict[str, Change]] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    turns: TurnsReport | None = None


def evaluate(
    models: PathLike | Sequence[PathLike] = (),
    *,
    harmful: PathLike,
    harmless: PathLike,
    utility: PathLike | None = None,
    reference: PathLike | None = None,
    patch: PathLike | None = None,
    trust: Trust = ANYBODY,
    out: PathLike | None = None,
    generations: PathLike | Sequence[PathLike] = (),
    options: EvaluateOptions | None = None,
    progress: Progress = ignore_progress,
) -> EvaluateReport:
    """Ask every model every request, greedily, and report rates with their intervals.

    Interrupted or not, the same inputs and options give the same replies on the same machine.

    Args:
        models: one or more checkpoint folders with config, tokenizer and chat template.
        harmful: requests that should be refused; see
            :func:`patchc.evaluation.requests.read_requests` for the formats.
        harmless: requests that should be answered.
        utility: questions with accepted answers.
        reference: a UTF-8 text to take the perplexity of.
        patch: measure each model without and with this patch. The patch is applied to a copy in
            the system's temporary folder, which must have room for it.
        trust: who must have signed ``patch``; see :func:`patchc.apply`.
        out: a results file that gets one line per reply. If an interrupted run left one, its
            replies are not asked for again.
        generations: files of replies to judge beside models, or in their place; see
            :func:`patchc.evaluation.replies_from_files.read_replies`. They need no torch.
        options: None means the defaults.
        progress: called after each batch.

    Raises:
        EvaluateError: bad requests or replies, no chat template, a judge that fails, or the
            results file of another evaluation.
        UsageError: no model, an option that cannot be met, or ``out`` with a judge that has no name
            of its own.
        MissingExtraError: torch, transformers, SciPy (with a patch) or a named judge's or task's
            package is missing.
        CheckpointError, UnsupportedInputError: a model cannot be read or loaded.
        CodeError: the patch has files that would be run, and ``trust`` does not allow code.
        StorageError: ``out`` or the temporary folder cannot be written.
        and, with a patch, what :func:`patchc.apply` raises.
    """
    options = options or EvaluateOptions()
    folders, files = listed(models), listed(generations)
    if not folders and not files:
        raise UsageError("evaluate needs at least one model, or a file of --generations")
    for name, given in (("patch", patch), ("reference", reference), ("lm_eval", options.lm_eval)):
        if given and not folders:
            raise UsageError(f"{name} needs a model; a file of replies is only judged")
    if out:
        check_judge_is_known_by_name(options)
    if options.lm_eval:
        check_harness()
    for folder in folders:
        with open_checkpoint(folder):
            refuse_single_file(folder, "evaluate")
    requests = read_request_sets(harmful, harmless, utility, options.limit)
    text = read_reference(reference) if reference else None
    asked = {"harmful": harmful, "harmless": harmless, "utility": utility, "reference": reference}
    data = {name: file_digest(Path(path)) for name, path in asked.items() if path is not None}
    names = [Path(os.path.realpath(path)).name for path in (*folders, *files)]
    if len(set(names)) < len(names):
        names = list(map(str, (*folders, *files)))
    replies = [
        read_replies(file, requests, name)
        for file, name in zip(files, names[len(folders) :], strict=True)
    ]
    judge = open_judge(options)
    if patch:
        check_scipy()
        with open_patch(patch) as opened:
            demand_trust(opened, trust)
        for folder in folders:
            _check_patch(Path(patch), folder, trust, progress)
    found: list[Evaluation] = []
    changes: dict[str, dict[str, Change]] = {}
    with ExitStack() as stack:
        results = None
        if out:
            results = stack.enter_context(open_results(Path(out), requests, options))
        if folders:
            with import_errors("evaluate", "derive"):
                from patchc.evaluation.model import evaluate_model
                from patchc.evaluation.prompts import encode_prompts

            def ask(setup: Setup, folder: Path, name: str) -> Evaluation:
                measured = evaluate_model(folder, name, setup, results, progress)
                figures = run_tasks(folder, options) if options.lm_eval else {}
                return replace(measured, lm_eval=figures)

            setups = [
                Setup(requests, encode_prompts(folder, requests, options), judge, text, options)
                for folder in folders
            ]
            for folder, name, setup in zip(folders, names[: len(folders)], setups, strict=True):
                one = partial(ask, setup)
                if patch is None:
                    found.append(one(folder, name))
                else:
                    plain, patched = _with_and_without(
                        Path(patch), folder, name, one, trust, progress
                    )
                    found += [plain, patched]
                    changes[patched.model] = compare(plain.outcomes, patched.outcomes)
        found += [measure(subject, requests, judge, results, progress) for subject in replies]
    counts: dict[str, int] = {name: len(asked) for name, asked in requests.items()}
    return EvaluateReport(tuple(found), options.judge_name, counts, changes, data)


def _check_patch(patch: Path, folder: Path, trust: Trust, progress: Progress) -> None:
    report = verify(patch, folder, trust=trust, progress=progress)
    if report.state != "base":
        refusals = {"patched": AlreadyPatchedError, "partly patched": PartlyPatchedError}
        raise refusals.get(report.state, WrongBaseError)(
            report.difference
            or f"{folder} is {report.state} with {patch}; name the model without it"
        )
    if not trust.allow_code:
        refuse_code(patch, report.code.files)


def _with_and_without(
    patch: Path,
    folder: Path,
    name: str,
    ask: Callable[[Path, str], Evaluation],
    trust: Trust,
    progress: Progress,
) -> tuple[Evaluation, Evaluation]:
    """Measure a model without and with a patch, which is applied before any request is asked."""
    with TemporaryDirectory(prefix="patchc-evaluate-") as scratch:
        copy = Path(scratch) / "patched"
        apply(patch, folder, out=copy, trust=trust, progress=progress)
        plain = ask(folder, name)
        patched = ask(copy, f"{name} + {patch.name}")
    return plain, replace(patched, path=str(folder), patch=str(patch))


def read_reference(path: PathLike) -> str:
    """Read the text to take the perplexity of; every line ending becomes a newline.

    Raises:
        EvaluateError: the file cannot be read, or is not UTF-8.
    """
    return read_text(Path(path), "utf-8").replace("\r\n", "\n").replace("\r", "\n")
