"""Make a lossless patch from two checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchc.checkpoint import Checkpoint, open_checkpoint
from patchc.chunks import Chunk
from patchc.compiler.pairing import pair_tensors
from patchc.compiler.pipeline import CompiledPatch
from patchc.compiler.rank_messages import TensorReport
from patchc.compiler.steps import Codec, check_patch_output, compile_update
from patchc.dtypes import Words
from patchc.errors import MismatchError
from patchc.formats import EncodedFile, TensorPair
from patchc.formats.container.layout import DEFAULT_CHUNK_BITS
from patchc.patching.side_files import changed_files
from patchc.patching.tensor_sides import read_side, unchanged_pairs
from patchc.progress import Progress, ignore_progress
from patchc.runtime.memory import threads_to_compare
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.workers import Workers
from patchc.verbs.provenance import tool


def diff(
    base: str | os.PathLike[str],
    tuned: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    weights_only: bool = False,
    threads: int | None = None,
    max_memory: int | None = None,
    chunk_bits: int = DEFAULT_CHUNK_BITS,
    codec: Codec = "auto",
    progress: Progress = ignore_progress,
    ranks: Ranks = ALONE,
) -> CompiledPatch:
    """Write a patch that takes ``base`` to ``tuned``: every word that differs, any dtype.

    Tensors may come, go, change their name, their shape or their dtype; shards, their headers and
    the files beside them may differ. A patch in which none of this happens does not hold anything
    of it.

    Args:
        base: a checkpoint folder or safetensors file.
        tuned: another of the same kind.
        out: the patch file to write; must not exist.
        weights_only: compare tensors alone, which must have equal names, dtypes and shapes;
            sharding may differ, and the patched model keeps the layout that it has. Always so for a
            folder and a file.
        threads: worker threads; None means one a core.
        max_memory: bytes that the process may take, to within a tenth: fewer threads run where more
            would not fit. None means 300 MB.
        chunk_bits: log2 of the words in a chunk of the patch's grid.
        codec: "auto" codes each chunk the shorter way; "rice" so that the changes can be read from
            the patch alone.
        progress: called with the parameters done.
        ranks: the ranks that share the work; see :func:`build`.

    Raises:
        MismatchError: with ``weights_only``, the two do not have the same tensors; names the first
            that differs.
        CheckpointError, UnsupportedInputError: an input cannot be read, or a file that differs is
            above the format's caps.
        OutputError, StorageError: the patch cannot be written.
        UsageError: ``chunk_bits``, ``codec``, ``threads`` or ``max_memory`` are out of range.
    """
    with open_checkpoint(base) as base_model, open_checkpoint(tuned) as tuned_model:
        check_patch_output(Path(out), (base_model.path, tuned_model.path), chunk_bits)
        threads = threads_to_compare(base_model, chunk_bits, threads, max_memory, ranks.neighbours)
        with Workers(threads, ranks) as workers:
            if weights_only or base_model.is_folder != tuned_model.is_folder:
                _match(base_model, tuned_model)
                rows, files = unchanged_pairs(base_model), iter(list[EncodedFile]())
            else:
                rows = pair_tensors(base_model, tuned_model, workers)
                files = changed_files(base_model, tuned_model)
            source = _Difference(base_model, tuned_model)
            return compile_update(
                Path(out), rows, source, files, workers, chunk_bits, progress, codec
            )


class _Difference:
    """Implements :class:`patchc.compiler.steps.UpdateSource`."""

    def __init__(self, base: Checkpoint, tuned: Checkpoint) -> None:
        self._base = base
        self._tuned = tuned

    def open_pair(self, row: TensorPair) -> _TensorDifference:
        return _TensorDifference(self._base, row, self._tuned)

    def metadata(self) -> Mapping[str, Any]:
        return {"kind": "diff", "tool": tool()}


class _TensorDifference:
    """Implements :class:`patchc.compiler.steps.TensorChanges`."""

    def __init__(self, base: Checkpoint, row: TensorPair, tuned: Checkpoint) -> None:
        self._base = base
        self._row = row
        self._tuned = tuned

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        before = read_side(self._base, self._row, chunk, "base", "base")
        return before, read_side(self._tuned, self._row, chunk, "result", "tuned")

    def finish(self) -> TensorReport:
        return {}


def _match(base: Checkpoint, tuned: Checkpoint) -> None:
    for name, tensor in base.tensors.items():
        twin = tuned.tensors.get(name)
        if twin is None:
            raise MismatchError(f"tensor {name!r} of {base.path} is missing from {tuned.path}")
        if (twin.dtype, twin.shape) != (tensor.dtype, tensor.shape):
            raise MismatchError(
                f"tensor {name!r} is {tensor.dtype.name} {list(tensor.shape)} in {base.path} and "
                f"{twin.dtype.name} {list(twin.shape)} in {tuned.path}; with --weights-only, and "
                "between a folder and a file, they must be equal"
            )
    for name in tuned.tensors:
        if name not in base.tensors:
            raise MismatchError(f"tensor {name!r} of {tuned.path} is missing from {base.path}")
