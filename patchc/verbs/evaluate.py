"""Measure models on harmful, harmless and utility requests, as they are and with a patch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from patchc.checkpoint import open_checkpoint
from patchc.errors import (
    AlreadyPatchedError,
    EvaluateError,
    MissingExtraError,
    PartlyPatchedError,
    PatchcError,
    UnsupportedInputError,
    UsageError,
    WrongBaseError,
)
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.harness import check_harness, run_tasks
from patchc.evaluation.judges import check_judge_is_known_by_name, open_judge
from patchc.evaluation.measure import Evaluation, measure
from patchc.evaluation.paired import Change, check_scipy, compare
from patchc.evaluation.replies import read_replies
from patchc.evaluation.requests import read_request_sets
from patchc.evaluation.results import evaluation_digest, open_results
from patchc.progress import Progress, ignore_progress
from patchc.verbs.apply import apply
from patchc.verbs.verify import verify

if TYPE_CHECKING:
    from patchc.evaluation.prompts import Prompts

PathLike = str | os.PathLike[str]

_REFUSALS: dict[str, type[PatchcError]] = {
    "patched": AlreadyPatchedError,
    "partly patched": PartlyPatchedError,
}


@dataclass(frozen=True)
class EvaluateReport:
    """What was measured: one entry a model, and after it one with the patch applied.

    Attributes:
        models: what was measured.
        judge: the judge's name.
        requests: how many requests each set has.
        changes: by the name of each patched model, how its rates differ from those of the model as
            it is (:func:`~patchc.evaluation.paired.compare`).
    """

    models: tuple[Evaluation, ...]
    judge: str
    requests: dict[str, int]
    changes: dict[str, dict[str, Change]] = field(default_factory=dict)


def evaluate(
    models: Sequence[PathLike] = (),
    *,
    harmful: PathLike,
    harmless: PathLike,
    utility: PathLike | None = None,
    reference: PathLike | None = None,
    patch: PathLike | None = None,
    out: PathLike | None = None,
    generations: Sequence[PathLike] = (),
    options: EvaluateOptions | None = None,
    progress: Progress = ignore_progress,
) -> EvaluateReport:
    """Ask every model every request, greedily, and report rates with their intervals.

    The same inputs and options give the same replies on the same machine, interrupted or not.

    Args:
        models: checkpoint folders with config, tokenizer and chat template.
        harmful: requests that should be refused; see
            :func:`patchc.evaluation.requests.read_requests` for the formats.
        harmless: requests that should be answered.
        utility: questions with accepted answers.
        reference: a UTF-8 text to take the perplexity of.
        patch: measure each model as it is and with this patch, applied to a copy in the
            system's temporary folder, which must have room for it.
        out: a results file that takes one line a reply as they come; with one that an interrupted
            run left, what it holds is not asked again.
        generations: files of replies to judge beside models, or in their place; see
            :func:`patchc.evaluation.replies.read_replies`. They need no torch.
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
        StorageError: ``out`` or the temporary folder cannot be written.
        and what :func:`patchc.apply` raises, where there is a patch.
    """
    options = options or EvaluateOptions()
    folders, files = list(map(Path, models)), list(map(Path, generations))
    if not folders and not files:
        raise UsageError("evaluate needs at least one model or file of generations")
    if not folders:
        _check_replies_alone(patch, reference, options)
    if out:
        check_judge_is_known_by_name(options)
    if options.lm_eval:
        check_harness()
    for folder in folders:
        _check_model(folder)
    requests = read_request_sets(
        Path(harmful), Path(harmless), Path(utility) if utility else None, options.limit
    )
    text = read_reference(Path(reference)) if reference else None
    names = _names([*folders, *files])
    replies = [
        read_replies(file, requests, name)
        for file, name in zip(files, names[len(folders) :], strict=True)
    ]
    judge = open_judge(options)
    if patch:
        check_scipy()
        for folder in folders:
            _check_patch(Path(patch), folder, progress)
    found: list[Evaluation] = []
    changes: dict[str, dict[str, Change]] = {}
    with ExitStack() as stack:
        results = None
        if out:
            evaluation = evaluation_digest(requests, options)
            results = stack.enter_context(open_results(Path(out), evaluation))
        if folders:
            evaluate_model, encode_prompts = _engine()
            ask = partial(
                evaluate_model,
                requests=requests,
                options=options,
                judge=judge,
                reference=text,
                results=results,
                progress=progress,
            )
            encoded = [encode_prompts(folder, requests, options) for folder in folders]
            for folder, name, prompts in zip(folders, names[: len(folders)], encoded, strict=True):
                one = partial(_with_tasks, partial(ask, prompts=prompts), options)
                if patch is None:
                    found.append(one(folder, name))
                else:
                    plain, patched = _with_and_without(Path(patch), folder, name, one, progress)
                    found += [plain, patched]
                    changes[patched.model] = compare(plain, patched)
        found += [measure(subject, requests, judge, results, progress) for subject in replies]
    counts: dict[str, int] = {name: len(asked) for name, asked in requests.items()}
    return EvaluateReport(tuple(found), options.judge_name, counts, changes)


def _check_model(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        if not checkpoint.is_folder:
            raise UnsupportedInputError(
                f"{folder}: evaluate needs the model's folder, with its config and tokenizer, not "
                "one file"
            )


def _check_replies_alone(
    patch: PathLike | None, reference: PathLike | None, options: EvaluateOptions
) -> None:
    for name, given in (("patch", patch), ("reference", reference), ("lm_eval", options.lm_eval)):
        if given:
            raise UsageError(f"{name} needs a model; replies made elsewhere are judged as they are")


def _check_patch(patch: Path, folder: Path, progress: Progress) -> None:
    report = verify(patch, folder, progress=progress)
    if report.state == "base":
        return
    refusal = _REFUSALS.get(report.state, WrongBaseError)
    raise refusal(
        report.difference or f"{folder} is {report.state} with {patch}; name the model without it"
    )


def _engine() -> tuple[Callable[..., Evaluation], Callable[..., Prompts]]:
    try:
        from patchc.evaluation.model import evaluate_model
        from patchc.evaluation.prompts import encode_prompts
    except ImportError as error:
        raise MissingExtraError(
            f"evaluate needs {error.name}; install it with `pip install 'patchc[derive]'`"
        ) from error
    return evaluate_model, encode_prompts


def _with_tasks(
    ask: Callable[..., Evaluation], options: EvaluateOptions, folder: Path, name: str
) -> Evaluation:
    measured = ask(folder, name=name)
    return replace(measured, lm_eval=run_tasks(folder, options)) if options.lm_eval else measured


def _with_and_without(
    patch: Path, folder: Path, name: str, ask: Callable[..., Evaluation], progress: Progress
) -> tuple[Evaluation, Evaluation]:
    """A model as it is and patched; the copy is made first, so that a failure costs no time."""
    with TemporaryDirectory(prefix="patchc-evaluate-") as scratch:
        copy = Path(scratch) / "patched"
        apply(patch, folder, out=copy, progress=progress)
        plain = ask(folder, name)
        patched = ask(copy, f"{name} + {patch.name}")
    return plain, replace(patched, path=str(folder), patch=str(patch))


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or where two are the same, the paths."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def read_reference(path: Path) -> str:
    """The text to take the perplexity of.

    Raises:
        EvaluateError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise EvaluateError(f"{path}: cannot read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise EvaluateError(f"{path}: not UTF-8 text; convert the file") from error
