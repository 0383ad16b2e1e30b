"""Make a lossless patch from two checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchc.checkpoint import Checkpoint, TensorInfo, open_checkpoint
from patchc.errors import MismatchError
from patchc.formats.layout import DEFAULT_CHUNK_BITS
from patchc.progress import Progress, ignore_progress
from patchc.stream import Chunk, Workers, scratch
from patchc.stream.compile import CompiledPatch, Words, check_patch_output, compile_patch
from patchc.verbs.provenance import tool


def diff(
    base: str | os.PathLike[str],
    tuned: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    threads: int | None = None,
    chunk_bits: int = DEFAULT_CHUNK_BITS,
    progress: Progress = ignore_progress,
) -> CompiledPatch:
    """Write a patch that takes ``base`` to ``tuned``: every word that differs, any dtype.

    Args:
        base: a checkpoint folder or safetensors file.
        tuned: another with the same tensor names, dtypes and shapes; sharding may differ.
        out: the patch file to write; must not exist.
        threads: worker threads; None means one a core.
        chunk_bits: log2 of the words in a chunk of the patch's grid.
        progress: called with the parameters done.

    Raises:
        MismatchError: the two do not have the same tensors; names the first that differs.
        CheckpointError, UnsupportedInputError: an input cannot be read.
        OutputError, StorageError: the patch cannot be written.
        UsageError: ``chunk_bits`` or ``threads`` are out of range.
    """
    with open_checkpoint(base) as base_model, open_checkpoint(tuned) as tuned_model:
        check_patch_output(Path(out), (base_model.path, tuned_model.path), chunk_bits)
        _match(base_model, tuned_model)
        source = _Difference(base_model, tuned_model)
        with Workers(threads) as workers:
            return compile_patch(
                Path(out), base_model, source, workers, chunk_bits, "diff", progress
            )


class _Difference:
    """Implements :class:`patchc.stream.compile.ChangeSource`."""

    def __init__(self, base: Checkpoint, tuned: Checkpoint) -> None:
        self._base = base
        self._tuned = tuned

    def open_tensor(self, tensor: TensorInfo, _chunks: list[Chunk]) -> _TensorDifference:
        return _TensorDifference(self._base, tensor, self._tuned)

    def metadata(self) -> Mapping[str, Any]:
        return {"kind": "diff", "tool": tool()}


class _TensorDifference:
    """Implements :class:`patchc.stream.compile.TensorChanges`."""

    def __init__(self, base: Checkpoint, tensor: TensorInfo, tuned: Checkpoint) -> None:
        self._base = base
        self._tensor = tensor
        self._tuned = tuned

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        word = self._tensor.dtype.word
        before = scratch("base", chunk.count, word)
        after = scratch("tuned", chunk.count, word)
        self._base.read_words(self._tensor, chunk.first, before)
        self._tuned.read_words(self._tuned.tensors[self._tensor.name], chunk.first, after)
        return before, after

    def finish(self) -> None:
        """Nothing to close."""


def _match(base: Checkpoint, tuned: Checkpoint) -> None:
    for name, tensor in base.tensors.items():
        twin = tuned.tensors.get(name)
        if twin is None:
            raise MismatchError(f"tensor {name!r} of {base.path} is missing from {tuned.path}")
        if (twin.dtype, twin.shape) != (tensor.dtype, tensor.shape):
            raise MismatchError(
                f"tensor {name!r} is {tensor.dtype.name} {list(tensor.shape)} in {base.path} and "
                f"{twin.dtype.name} {list(twin.shape)} in {tuned.path}; diff needs equal ones"
            )
    for name in tuned.tensors:
        if name not in base.tensors:
            raise MismatchError(f"tensor {name!r} of {tuned.path} is missing from {base.path}")
