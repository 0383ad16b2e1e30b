"""What a codec of chunk bodies does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from patchc.formats.change_bits import ChangeBits

Positions = NDArray[np.uint32]
Steps = NDArray[np.int64]


@dataclass(frozen=True)
class Coding:
    """A chunk's body, and what positions and steps take of it; the rest says how they are coded."""

    body: bytes
    bits: ChangeBits


class Codec(Protocol):
    """Turns the changed words of one chunk into bytes and back."""

    @property
    def id(self) -> int:
        """The number that stands for the codec in a patch file."""

    @property
    def name(self) -> str:
        """The name for people."""

    def encode(self, positions: Positions, steps: Steps, words: int, word_bits: int) -> Coding:
        """Code a chunk.

        Args:
            positions: strictly increasing, below ``words``; at least one.
            steps: as many; signed, not 0, within ``word_bits`` bits.
            words: number of words in the chunk.
            word_bits: 8, 16, 32 or 64.
        """

    def decode(
        self, body: bytes, entries: int, words: int, word_bits: int
    ) -> tuple[Positions, Steps]:
        """Invert :meth:`encode`; ``body`` may be hostile.

        Returns:
            Exactly ``entries`` positions, strictly increasing and below ``words``, and their steps.

        Raises:
            PatchFormatError: the body is not a coding of ``entries`` changes of such a chunk.
        """
