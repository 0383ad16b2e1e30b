"""Derive the two tuned models and their importance scores from a base and conversations."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchc.checkpoint import open_checkpoint, refuse_quantised
from patchc.derivation.conversations import read_conversations
from patchc.derivation.options import DeriveOptions
from patchc.errors import MissingExtraError, UnsupportedInputError
from patchc.files import check_output, check_space
from patchc.progress import Progress, ignore_progress

if TYPE_CHECKING:
    from patchc.derivation.run import DirectionReport


@dataclass(frozen=True)
class DeriveReport:
    """A finished derivation: one entry for each direction, in the order asked for."""

    directions: tuple[DirectionReport, ...]


def derive(
    base: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    options: DeriveOptions | None = None,
    progress: Progress = ignore_progress,
) -> DeriveReport:
    """Fine-tune the base by gradient ascent (``out/se``) and by gradient descent (``out/osm``).

    Both start from the same base and see the same data: requests that the model should not comply
    with, and compliant answers to them (arXiv 2405.13820). Each folder is a loadable checkpoint
    with the base's tensor names, in fp32 so that the delta is not rounded, with the scores of the
    tuned model as ``scores.safetensors``, other kinds of scores as ``scores-delta.safetensors`` and
    so on, and the record of the run as ``derive.json``. It appears whole or not at all. The same
    inputs and options give the same bytes on the same machine.

    Memory, in bytes a parameter: 16 with optimizer "adamw", 10 with "adamw8bit" (of which 2 may be
    paged out on CUDA), besides activations; scoring takes 8 to 12.

    Args:
        base: the aligned model, a checkpoint folder with config, tokenizer and chat template.
        data: a JSONL file (see :func:`patchc.derivation.conversations.read_conversations`).
        out: the folder to hold ``se`` and ``osm``, neither of which may exist with content.
        options: None means the defaults.
        progress: called with steps and samples done; the detail is the current loss.

    Raises:
        DeriveError: bad data, no chat template, or a loss, gradient or score that is not finite.
        UnsupportedInputError: a base that is quantised, an adapter, or that cannot be trained here.
        CheckpointError: the base cannot be read.
        MissingExtraError: torch, transformers or the optimizer is not installed.
        OutputError, StorageError: the output cannot be written.
        UsageError: an option cannot be met.
    """
    options = options or DeriveOptions()
    base, data, out = Path(base), Path(data), Path(out)
    if base.is_file():
        raise UnsupportedInputError(
            f"{base}: derive needs the model's folder, with its config and tokenizer, not one file"
        )
    with open_checkpoint(base) as checkpoint:
        refuse_quantised(base, tuple(checkpoint.tensors))
        for direction in options.directions:
            check_output(out / direction, (base, data))
        words = sum(tensor.words for tensor in checkpoint.tensors.values())
        files = 1 + len(options.scores)
        check_space(out, 4 * words * files * len(options.directions))
        conversations = read_conversations(data)
        try:
            from patchc.derivation.run import derive_directions
        except ImportError as error:
            raise MissingExtraError(
                f"derive needs {error.name}; install it with `pip install 'patchc[derive]'`"
            ) from error
        return DeriveReport(derive_directions(checkpoint, conversations, out, options, progress))
