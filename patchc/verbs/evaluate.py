"""Measure models on harmful, harmless and utility requests, without and with a patch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from patchc.checkpoint import open_checkpoint, refuse_single_file
from patchc.errors import UsageError, import_errors
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
from patchc.hub_cache import model_name
from patchc.hub_models import takes_models
from patchc.paths import PathLike, listed
from patchc.progress import Progress, ignore_progress
from patchc.signing.trust import ANYBODY, Trust
from patchc.stages import file_digest
from patchc.verbs.patched_models import (
    check_changes_weights,
    check_patch,
    check_signed,
    with_and_without,
)
from patchc.verbs.turns import check_turns


@dataclass(frozen=True)
class EvaluateReport:
    """What was measured: one entry per model, each followed by one with the patch applied.

    With a chain of patches, the model is followed by one entry a turn, and by one with the patches
    that were applied together.

    Attributes:
        models: what was measured.
        judge: the judge's name.
        requests: how many requests each set has.
        changes: by the name of each patched model, how its rates differ from those of the unpatched
            model (:func:`~patchc.evaluation.paired.compare`).
        data: BLAKE3 of the file of each set, in hexadecimal.
        turns: what a chain of patches does, by category of harmful requests; None without a chain.
    """

    models: tuple[Evaluation, ...]
    judge: str
    requests: dict[str, int]
    changes: dict[str, dict[str, Change]] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    turns: TurnsReport | None = None


@takes_models("models")
def evaluate(
    models: PathLike | Sequence[PathLike] = (),
    *,
    harmful: PathLike,
    harmless: PathLike,
    utility: PathLike | None = None,
    reference: PathLike | None = None,
    patch: PathLike | None = None,
    turns: PathLike | Sequence[PathLike] = (),
    together: PathLike | Sequence[PathLike] = (),
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
        utility: questions with accepted answers, or with choices of which one is right.
        reference: a UTF-8 text to take the perplexity of.
        patch: measure each model without and with this patch. The patch is applied to a copy in
            the system's temporary folder, which must have room for it.
        turns: patches that follow one another, the first made on the one model, and each further
            one on the model that the one before it left. The model is measured without them and
            after each.
        together: with ``turns``, what to compare them with: additive patches that were each made on
            the model, applied to it one after another in any order, each rounded once; or one patch
            of any kind.
        trust: who must have signed the patches; see :func:`patchc.apply`.
        out: a results file that gets one line per reply. If an interrupted run left one, its
            replies are not asked for again.
        generations: files of replies to judge beside models, or in their place; see
            :func:`patchc.evaluation.replies_from_files.read_replies`. They need no torch.
        options: None means the defaults.
        progress: called after each batch.

    Raises:
        EvaluateError: bad requests or replies, no chat template, a judge that fails, or the
            results file of another evaluation.
        UsageError: no model, or several with ``turns``; an option that cannot be met; ``out`` with
            a judge that has no name of its own, or with a patch that changes no weights; a patch
            that is given twice, or several in ``together`` that are not all additive.
        MismatchError: a patch of ``turns`` does not follow the one before it.
        MissingExtraError: torch, transformers, SciPy (with a patch) or a named judge's or task's
            package is missing.
        CheckpointError, UnsupportedInputError: a model cannot be read or loaded.
        CodeError: a patch has files that would be run, and ``trust`` does not allow code.
        StorageError: ``out`` or the temporary folder cannot be written.
        and, with a patch, what :func:`patchc.apply` raises.
    """
    options = options or EvaluateOptions()
    folders, files = listed(models), listed(generations)
    in_turn, at_once = listed(turns), listed(together)
    if not folders and not files:
        raise UsageError("evaluate needs at least one model, or a file of --generations")
    for name, given in (("patch", patch), ("reference", reference), ("lm_eval", options.lm_eval)):
        if given and not folders:
            raise UsageError(f"{name} needs a model; a file of replies is only judged")
    _check_turns_fit(in_turn, at_once, folders, files, patch)
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
    names = [model_name(path) for path in (*folders, *files)]
    if len(set(names)) < len(names):
        names = list(map(str, (*folders, *files)))
    replies = [
        read_replies(file, requests, name)
        for file, name in zip(files, names[len(folders) :], strict=True)
    ]
    judge = open_judge(options)
    if patch:
        check_scipy()
        check_signed(Path(patch), trust)
        for folder in folders:
            check_patch(Path(patch), folder, trust, progress)
    chain = None
    if in_turn:
        check_scipy()
        chain = check_turns(in_turn, at_once, folders[0], trust, progress)
    if out:
        for path in (*listed(patch or ()), *in_turn, *at_once):
            check_changes_weights(path)
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

            def ask(given: Path, setup: Setup, folder: Path, name: str) -> Evaluation:
                if folder != given:  # a patch may bring another tokenizer or chat template
                    setup = replace(setup, prompts=encode_prompts(folder, requests, options))
                measured = evaluate_model(folder, name, setup, results, progress)
                figures = run_tasks(folder, options) if options.lm_eval else {}
                return replace(measured, lm_eval=figures)

            setups = [
                Setup(requests, encode_prompts(folder, requests, options), judge, text, options)
                for folder in folders
            ]
            for folder, name, setup in zip(folders, names[: len(folders)], setups, strict=True):
                one = partial(ask, folder, setup)
                if chain:
                    measured = chain.measure(folder, name, one, trust, progress)
                elif patch:
                    measured = with_and_without(Path(patch), folder, name, one, trust, progress)
                else:
                    measured = [one(folder, name)]
                plain, *patched = measured
                changes |= {new.model: compare(plain.outcomes, new.outcomes) for new in patched}
                found += measured
        found += [measure(subject, requests, judge, results, progress) for subject in replies]
    counts: dict[str, int] = {name: len(asked) for name, asked in requests.items()}
    described = chain.describe(found, requests) if chain else None
    return EvaluateReport(tuple(found), options.judge_name, counts, changes, data, described)


def _check_turns_fit(
    turns: Sequence[Path],
    together: Sequence[Path],
    folders: Sequence[Path],
    files: Sequence[Path],
    patch: PathLike | None,
) -> None:
    if together and not turns:
        raise UsageError("together is compared with turns; give those too, or apply the patches")
    if not turns:
        return
    for name, given in (("patch", patch), ("generations", files)):
        if given:
            raise UsageError(f"turns and {name} exclude each other; give one of them")
    if len(folders) != 1:
        raise UsageError(
            f"turns take one model, and there are {len(folders)}: {', '.join(map(str, folders))}; "
            "on the command line, a word after --turns is a patch only where it is a file"
        )


def read_reference(path: PathLike) -> str:
    """Read the text to take the perplexity of; every line ending becomes a newline.

    Raises:
        EvaluateError: the file cannot be read, or is not UTF-8.
    """
    return read_text(Path(path), "utf-8").replace("\r\n", "\n").replace("\r", "\n")
