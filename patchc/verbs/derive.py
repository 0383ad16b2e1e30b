"""Derive tuned models and their importance scores from a base and requests or conversations."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchc.checkpoint import open_checkpoint, refuse_quantised
from patchc.derivation.derive_options import DeriveOptions, Objective
from patchc.errors import MissingExtraError, UnsupportedInputError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.judges import check_judge
from patchc.evaluation.verdicts import Judge
from patchc.files import check_output, check_space
from patchc.progress import Progress, ignore_progress
from patchc.verbs.derive_inputs import check_files, read_inputs

if TYPE_CHECKING:
    from patchc.derivation.derivation import DirectionReport

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class DeriveReport:
    """A finished derivation.

    Attributes:
        directions: one entry for each, in the order asked for.
        objective: what the tuning followed.
        refusal: the text that "refusals" taught.
        openings: how refusals begin, as "margin" was told or found; the most frequent first.
    """

    directions: tuple[DirectionReport, ...]
    objective: Objective = "pair"
    refusal: str | None = None
    openings: tuple[str, ...] = ()


def derive(
    base: PathLike,
    data: PathLike | None,
    out: PathLike,
    *,
    harmless: PathLike | None = None,
    anchor: PathLike | None = None,
    options: DeriveOptions | None = None,
    judge: str | Judge = "phrases",
    progress: Progress = ignore_progress,
) -> DeriveReport:
    """Fine-tune the base by the objective of the options, and score the weights.

    The default, the pair, is the paper's (arXiv 2405.13820): gradient ascent (``out/se``) and
    gradient descent (``out/osm``), both from the same base and on the same data, requests that the
    model should not comply with and compliant answers to them. The other objectives are for other
    data; see :class:`patchc.DeriveOptions`. "refusals" and "npo" write ``out/se``, "answers"
    ``out/osm`` and "margin" ``out/margin``, which :func:`patchc.build` takes as ``se`` with
    ``sets`` "se", or merges.

    Each folder is a loadable checkpoint with the base's tensor names, in fp32 so that the delta is
    not rounded, with the scores of the tuned model as ``scores.safetensors``, other kinds of scores
    as ``scores-delta.safetensors`` and so on, and the record of the run as ``derive.json``. It
    appears whole or not at all. The same inputs and options give the same bytes on the same
    machine.

    Memory, in bytes a parameter: 16 with optimizer "adamw", 10 with "adamw8bit" (of which 2 may be
    paged out on CUDA), besides activations; scoring takes 8 to 12. With ``retain`` below 1 the
    model is held in its own dtype where that is bf16, and in fp32 elsewhere: tuning takes 2 or 4,
    one tensor's gradient, and 28 for each entry that is tuned; scoring of bf16 takes 6 to 10.

    Args:
        base: the aligned model, a checkpoint folder with config, tokenizer and chat template.
        data: harmful requests; with compliant answers for "pair" and "npo"
            (:func:`patchc.derivation.conversations.read_conversations`), without for "refusals" and
            "margin" (:func:`patchc.evaluation.requests.read_requests`), which do not read them.
            None for "answers".
        out: the folder to hold the directions, none of which may exist with content.
        harmless: harmless requests for "margin", and with answers for "answers".
        anchor: harmless requests on which the model is held to the base, along the base's own
            replies where it answers. "margin" does so on the harmless requests as well, and learns
            to answer what the base refuses of either.
        options: None means the defaults.
        judge: who says which of the base's replies are refusals, where openings or a refusal are
            sought, as in :class:`patchc.EvaluateOptions`. A function that is named has to exist
            even where nothing is sought.
        progress: called with requests, steps and samples done; the detail is the current loss.

    Raises:
        DeriveError: bad data, no chat template, replies of the base that show no refusal or nothing
            else, a request without room for a reply, a ``retain`` that draws no entry, or a loss,
            gradient or score that is not finite.
        EvaluateError: bad requests, or a judge that fails.
        UnsupportedInputError: a base that is quantised, an adapter, or that cannot be trained here.
        CheckpointError: the base cannot be read.
        MissingExtraError: torch, transformers or the optimizer is not installed.
        OutputError, StorageError: the output cannot be written.
        UsageError: an option cannot be met, or a file is missing or not one of the objective's.
    """
    options = options or DeriveOptions()
    base, out = Path(base), Path(out)
    given = {"data": data, "harmless": harmless, "anchor": anchor}
    files = {name: Path(path) for name, path in given.items() if path is not None}
    check_files(files, options)
    check_judge(EvaluateOptions(judge=judge))
    if base.is_file():
        raise UnsupportedInputError(
            f"{base}: derive needs the model's folder, with its config and tokenizer, not one file"
        )
    with open_checkpoint(base) as checkpoint:
        refuse_quantised(base, tuple(checkpoint.tensors))
        for direction in options.folders:
            check_output(out / direction, (base, *files.values()))
        words = sum(tensor.words for tensor in checkpoint.tensors.values())
        kinds = 1 + len(options.scores)
        check_space(out, 4 * words * kinds * len(options.folders))
        inputs = read_inputs(files, options)
        try:
            from patchc.derivation.derivation import derive_directions
            from patchc.verbs.derive_material import gather
        except ImportError as error:
            raise MissingExtraError(
                f"derive needs {error.name}; install it with `pip install 'patchc[derive]'`"
            ) from error
        material = gather(checkpoint, inputs, options, judge, progress)
        directions = derive_directions(checkpoint, material, out, options, progress)
    found: Any = material.record
    return DeriveReport(
        directions,
        options.objective,
        found.get("refusal"),
        tuple(one["text"] for one in found.get("openings", ())),
    )
