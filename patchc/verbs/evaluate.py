"""Measure models on harmful, harmless and utility requests, as they are and with a patch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from patchc.errors import EvaluateError, MissingExtraError, UsageError
from patchc.evaluation.judges import open_judge
from patchc.evaluation.measure import Evaluation
from patchc.evaluation.options import EvaluateOptions
from patchc.evaluation.requests import read_request_sets
from patchc.evaluation.results import evaluation_digest, open_results
from patchc.progress import Progress, ignore_progress
from patchc.verbs.apply import apply

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class EvaluateReport:
    """What was measured: one entry a model, and after it one with the patch applied.

    ``judge`` names the judge, ``requests`` counts the requests of each set.
    """

    models: tuple[Evaluation, ...]
    judge: str
    requests: dict[str, int]


def evaluate(
    models: Sequence[PathLike],
    *,
    harmful: PathLike,
    harmless: PathLike,
    utility: PathLike | None = None,
    reference: PathLike | None = None,
    patch: PathLike | None = None,
    out: PathLike | None = None,
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
        patch: measure each model as it is and with this patch, applied in a temporary folder.
        out: a results file that takes one line a reply as they come; with one that an interrupted
            run left, what it holds is not asked again.
        options: None means the defaults.
        progress: called after each batch.

    Raises:
        EvaluateError: bad requests, no chat template, a judge that fails, or another evaluation's
            results file.
        UsageError: no model, or an option that cannot be met.
        MissingExtraError: torch or transformers is not installed.
        CheckpointError, UnsupportedInputError: a model cannot be read or loaded.
        StorageError: ``out`` or the temporary folder cannot be written.
        and what :func:`patchc.apply` raises, where there is a patch.
    """
    options = options or EvaluateOptions()
    folders = [Path(model) for model in models]
    if not folders:
        raise UsageError("evaluate needs at least one model")
    requests = read_request_sets(
        Path(harmful), Path(harmless), Path(utility) if utility else None, options.limit
    )
    text = _read_reference(Path(reference)) if reference else None
    try:
        from patchc.derivation.session import choose_device
        from patchc.evaluation.model import evaluate_model
        from patchc.evaluation.prompts import encode_prompts
    except ImportError as error:
        raise MissingExtraError(
            f"evaluate needs {error.name}; install it with `pip install 'patchc[derive]'`"
        ) from error
    device = choose_device(options.device).type
    judge = open_judge(options)
    found: list[Evaluation] = []
    with ExitStack() as stack:
        results = None
        if out:
            evaluation = evaluation_digest(requests, options, device)
            results = stack.enter_context(open_results(Path(out), evaluation))
        for folder, name in zip(folders, _names(folders), strict=True):
            prompts = encode_prompts(folder, requests, options)
            for variant, patched in _variants(folder, patch, progress):
                measured = evaluate_model(
                    variant,
                    requests,
                    options,
                    name=f"{name} + {patched.name}" if patched else name,
                    prompts=prompts,
                    judge=judge,
                    reference=text,
                    results=results,
                    progress=progress,
                )
                measured = replace(
                    measured, path=str(folder), patch=str(patched) if patched else None
                )
                found.append(measured)
    counts: dict[str, int] = {name: len(asked) for name, asked in requests.items()}
    return EvaluateReport(tuple(found), options.judge_name, counts)


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or where two are the same, the paths."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _variants(
    folder: Path, patch: PathLike | None, progress: Progress
) -> Iterator[tuple[Path, Path | None]]:
    """The model as it is and, where there is a patch, a patched copy that lives for one step."""
    yield folder, None
    if patch:
        with TemporaryDirectory(prefix="patchc-evaluate-") as scratch:
            copy = Path(scratch) / "patched"
            apply(patch, folder, out=copy, progress=progress)
            yield copy, Path(patch)


def _read_reference(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise EvaluateError(f"{path}: cannot read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise EvaluateError(f"{path}: not UTF-8 text; convert the file") from error
