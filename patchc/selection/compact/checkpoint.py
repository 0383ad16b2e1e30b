"""Reads files of retained entries as whole tensors, block by block, from any thread.

A block's mask is drawn when the block is read, and the stored words are put to its places. How many
words each block has is stored, so any block is found without drawing those before it; the draws
show whether that number is true.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchc.buffers import ThreadBuffer
from patchc.checkpoint import Checkpoint, TensorInfo, open_checkpoint
from patchc.dtypes import BY_NAME, WEIGHT_DTYPES
from patchc.errors import CheckpointError, MissingCheckpointError
from patchc.kernels.philox import Retention
from patchc.kernels.retained_words import BLOCK_WORDS, put_retained
from patchc.kernels.tiles import convert
from patchc.selection.compact.description import COUNTS, HeldTensor

_F32, _COUNT = BY_NAME["F32"], BY_NAME["U32"]


@dataclass(frozen=True)
class _Stored:
    """The stored words of a tensor, and before each block how many of them belong to earlier ones.

    There is one more number, their total.
    """

    info: TensorInfo
    retention: Retention
    before: NDArray[np.int64]


class CompactCheckpoint(Checkpoint):
    """An open checkpoint of whole fp32 tensors, whose files hold the retained entries alone.

    Entries that are not retained read as 0: whoever opens it makes sure that nothing looks at them.
    With ``base``, there are also the base's other tensors, as fp32 where they can be merged.

    Args:
        folder: where the files are.
        stem: the start of their names.
        held: the tensors, by name.
        retentions: which entries of each are retained.
        base: the model that all other tensors are taken from; None where there are none.

    Raises:
        CheckpointError: a file is missing, malformed, or does not fit what is held.
        UnsupportedInputError: it holds an unknown dtype.
    """

    def __init__(
        self,
        folder: Path,
        stem: str,
        held: Mapping[str, HeldTensor],
        retentions: Mapping[str, Retention],
        base: Checkpoint | None = None,
    ) -> None:
        with _open(folder, stem) as stored:
            super().__init__(folder, stored.files, list(stored.shards.values()))
        self._base = base
        self._words, self._block = ThreadBuffer(), ThreadBuffer()
        try:
            self._stored = self._find_all(held, _read_counts(folder), retentions)
        except BaseException:
            self._files.close()
            raise
        whole = {name: replace(t, shape=held[name].shape) for name, t in self.tensors.items()}
        rest = {name: _as_tuned(t) for name, t in (base.tensors if base else {}).items()}
        self.tensors = rest | whole

    def stored_bytes(self, name: str) -> int:
        """Bytes that a read of a whole tensor takes from the files, the base's included."""
        if self._base and name not in self._stored:
            return self._base.tensors[name].nbytes
        return self._stored[name].info.nbytes

    def read_words(
        self, tensor: TensorInfo, first: int, out: NDArray[np.unsignedinteger]
    ) -> NDArray[np.unsignedinteger]:
        """See :class:`Checkpoint`.

        Raises:
            CheckpointError: also where a block has another number of words than its mask.
        """
        if self._base and tensor.name not in self._stored:
            return _read_tuned(self._base, tensor, first, out, self._words)
        stored, done = self._stored[tensor.name], 0
        while done < len(out):
            number, start = divmod(first + done, BLOCK_WORDS)
            size = min(BLOCK_WORDS, tensor.words - number * BLOCK_WORDS)
            left = out[done:]
            if start or len(left) < size:
                part = left[: size - start]
                block = self._block(size, _F32.word)
                self._read_blocks(stored, number, block)
                part[:] = block[start : start + len(part)]
            else:
                to_end = first + len(out) == tensor.words
                part = left if to_end else left[: len(left) // BLOCK_WORDS * BLOCK_WORDS]
                self._read_blocks(stored, number, part)
            done += len(part)
        return out

    def read_held(
        self, tensor: TensorInfo, first: int, out: NDArray[np.unsignedinteger]
    ) -> NDArray[np.unsignedinteger] | None:
        """Read the retained words alone among as many as ``out`` has room for, and return them.

        None unless these words are whole blocks of a tensor that is held.

        Raises:
            CheckpointError: the file became unreadable or shorter.
        """
        stored, end = self._stored.get(tensor.name), first + len(out)
        if not stored or first % BLOCK_WORDS or (end % BLOCK_WORDS and end != tensor.words):
            return None
        begin, stop = (int(stored.before[count_blocks(one)]) for one in (first, end))
        return super().read_words(stored.info, begin, out[: stop - begin])

    def _find_all(
        self,
        held: Mapping[str, HeldTensor],
        counts: Mapping[str, NDArray[np.int64]],
        retentions: Mapping[str, Retention],
    ) -> dict[str, _Stored]:
        files = f"{self.path}: {', '.join(self.shards)}"
        if not self.tensors.keys() == counts.keys() == held.keys():
            raise CheckpointError(
                f"{files}: has other tensors than the component's description; derive it again"
            )
        return {
            name: _find(files, info, held[name].shape, counts[name], retentions[name])
            for name, info in self.tensors.items()
        }

    def _read_blocks(self, stored: _Stored, number: int, out: NDArray[np.unsignedinteger]) -> None:
        """Read whole blocks, from one of this number on; the last may be a tensor's short one."""
        before = stored.before[number : number + count_blocks(len(out)) + 1]
        size = int(before[-1] - before[0])
        words = super().read_words(stored.info, int(before[0]), self._words(size, _F32.word))
        if not put_retained(words, before, number * BLOCK_WORDS, stored.retention, out):
            raise CheckpointError(
                f"{self.shards[stored.info.shard].path}: tensor {stored.info.name!r} has another "
                "number of entries than its seed retains; derive it again"
            )


def bytes_to_read(model: Checkpoint, name: str) -> int:
    """How many bytes a read of a whole tensor takes from a model's files."""
    if isinstance(model, CompactCheckpoint):
        return model.stored_bytes(name)
    return model.tensors[name].nbytes


def count_blocks(words: int) -> int:
    """How many blocks a tensor of so many words has."""
    return -(-words // BLOCK_WORDS)


def _read_tuned(
    base: Checkpoint,
    tensor: TensorInfo,
    first: int,
    out: NDArray[np.unsignedinteger],
    buffer: ThreadBuffer,
) -> NDArray[np.unsignedinteger]:
    """Read the base's words of a tensor that tuning did not change."""
    info = base.tensors[tensor.name]
    if info.dtype == tensor.dtype:
        return base.read_words(info, first, out)
    words = base.read_words(info, first, buffer(len(out), info.dtype.word))
    convert(words, info.dtype.code, out.view(np.float32))
    return out


def _as_tuned(info: TensorInfo) -> TensorInfo:
    return replace(info, dtype=_F32) if info.dtype.name in WEIGHT_DTYPES else info


def _open(folder: Path, stem: str) -> Checkpoint:
    single = folder / f"{stem}.safetensors"
    if not single.exists() and not (folder / f"{stem}.safetensors.index.json").exists():
        raise MissingCheckpointError(
            f"{single}: no such file, and it is a part of the compact component; copy the whole "
            "folder, or derive it again",
            str(single),
        )
    return open_checkpoint(folder, stem)


def _read_counts(folder: Path) -> dict[str, NDArray[np.int64]]:
    with _open(folder, COUNTS) as file:
        for name, info in file.tensors.items():
            if info.dtype != _COUNT or len(info.shape) != 1:
                raise CheckpointError(
                    f"{folder / COUNTS}.safetensors: tensor {name!r} is no list of numbers; derive "
                    "it again"
                )
        return {
            name: file.read_words(info, 0, np.empty(info.words, _COUNT.word)).astype(np.int64)
            for name, info in file.tensors.items()
        }


def _find(
    files: str,
    info: TensorInfo,
    shape: tuple[int, ...],
    counts: NDArray[np.int64],
    retention: Retention,
) -> _Stored:
    words = _F32.words(shape)
    before = np.concatenate(([0], np.cumsum(counts)))
    if (
        info.dtype != _F32
        or info.shape != (before[-1],)
        or len(counts) != count_blocks(words)
        or np.any(counts > BLOCK_WORDS)
    ):
        raise CheckpointError(
            f"{files}: tensor {info.name!r} does not fit its shape {list(shape)} and the numbers "
            "of its entries; derive it again"
        )
    return _Stored(info, retention, before)
