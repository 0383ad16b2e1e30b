"""Element types of safetensors files, and the machine words that patchc computes on.

A *word* is the unit that positions, steps and chunks count in: one element for types of whole
bytes, one byte for packed 4- and 6-bit types (several elements share a byte there).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from patchc.errors import CheckpointError

Words = NDArray[np.unsignedinteger]
"""Words of a tensor, as unsigned integers of their width."""


@dataclass(frozen=True)
class DType:
    """One safetensors dtype.

    ``bits`` is the size of one element. ``total_order`` says that words are sign-magnitude floats,
    whose steps are taken on the IEEE total-order integer; all others are raw integers.
    ``code`` is the number that stands for the dtype in a patch file; codes are never reused.
    """

    name: str
    code: int
    bits: int
    total_order: bool

    @cached_property
    def word_bytes(self) -> int:
        """Bytes of one word."""
        return self.bits // 8 if self.bits % 8 == 0 else 1

    @cached_property
    def word_bits(self) -> int:
        """Bits of one word."""
        return 8 * self.word_bytes

    @cached_property
    def word(self) -> np.dtype[np.unsignedinteger]:
        """The unsigned NumPy type of one word, little-endian."""
        return np.dtype(f"<u{self.word_bytes}")

    def words(self, shape: tuple[int, ...]) -> int:
        """Number of words of a tensor.

        Raises:
            CheckpointError: a packed tensor does not fill whole bytes.
        """
        bits = math.prod(shape) * self.bits
        if bits % 8:
            raise CheckpointError(
                f"a {self.name} tensor of shape {list(shape)} does not fill whole bytes"
            )
        return bits // self.word_bits


_TABLE = (
    DType("BOOL", 1, 8, False),
    DType("U8", 2, 8, False),
    DType("I8", 3, 8, False),
    DType("U16", 4, 16, False),
    DType("I16", 5, 16, False),
    DType("U32", 6, 32, False),
    DType("I32", 7, 32, False),
    DType("U64", 8, 64, False),
    DType("I64", 9, 64, False),
    DType("F64", 10, 64, True),
    DType("F32", 11, 32, True),
    DType("F16", 12, 16, True),
    DType("BF16", 13, 16, True),
    DType("F8_E4M3", 14, 8, True),
    DType("F8_E5M2", 15, 8, True),
    DType("F8_E8M0", 16, 8, False),
    DType("F8_E4M3FNUZ", 17, 8, False),
    DType("F8_E5M2FNUZ", 18, 8, False),
    DType("F6_E2M3", 19, 6, False),
    DType("F6_E3M2", 20, 6, False),
    DType("F4", 21, 4, False),
    DType("C64", 22, 64, False),
)

BY_NAME = {dtype.name: dtype for dtype in _TABLE}
BY_CODE = {dtype.code: dtype for dtype in _TABLE}

MERGEABLE = ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
"""Names of the dtypes that a patch file may add deltas to: floats that convert to fp32 exactly."""

WEIGHT_DTYPES = ("F32", "F16", "BF16")
"""Names of the dtypes of weights that a build computes with; FP8 words are codes with scales."""

INT8_BLOCK = 256
"""Deltas of an additive patch that share one absmax where they are stored as int8."""
