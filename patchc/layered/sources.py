"""Where the values of a model's tensors come from: the base's files, or what was trained since."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from patchc.checkpoint import Checkpoint

_MOST_READ = 1 << 22
"""Words that are read at once."""

_KINDS = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}
_SIGNED = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


class Source(Protocol):
    """Gives the values of tensors by name."""

    def read(self, name: str, first: int, out: Tensor) -> None:
        """Fill ``out``, flat and on the CPU, with the values from flat index ``first`` on."""


class BaseSource:
    """The values that a checkpoint stores; safe to read from several threads.

    Args:
        base: the open checkpoint.
    """

    def __init__(self, base: Checkpoint) -> None:
        self._base = base
        self.bytes_read = 0

    def kind(self, name: str) -> torch.dtype:
        """Return the dtype in which a tensor is stored."""
        return _KINDS[self._base.tensors[name].dtype.name]

    def read(self, name: str, first: int, out: Tensor) -> None:
        """See :class:`Source`; values are converted to the dtype of ``out``, rounded to nearest.

        Raises:
            CheckpointError: a file became unreadable or shorter.
        """
        info = self._base.tensors[name]
        self.bytes_read += out.numel() * info.dtype.word_bytes
        kind = self.kind(name)
        direct = out.dtype == kind and out.is_contiguous()
        for start in range(0, out.numel(), _MOST_READ):
            part = out[start : start + _MOST_READ]
            if direct:
                words = part.view(torch.uint8).numpy().view(info.dtype.word)
                self._base.read_words(info, first + start, words)
                continue
            words = np.empty(part.numel(), info.dtype.word)
            self._base.read_words(info, first + start, words)
            signed = torch.from_numpy(words.view(_SIGNED[words.itemsize]))
            part.copy_(signed.view(kind))


def read_whole(source: Source, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Read a whole tensor into new memory on the CPU."""
    values = torch.empty(shape, dtype=dtype)
    source.read(name, 0, values.view(-1))
    return values
