"""What every codec of chunk bodies has and does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import DType, Words
from patchc.errors import UsageError
from patchc.formats.change_bits import ChangeBits
from patchc.formats.codecs.additive_values import NO_VALUES, AdditiveValues, ComponentEntries
from patchc.kernels.histograms import Counts
from patchc.kernels.ulp_steps.cpu import add_steps
from patchc.sides import Side

Positions = NDArray[np.uint32]
Steps = NDArray[np.int64]
Kept = tuple[Positions, Words]
"""Room for as many positions and words as a chunk has changes."""

Groups = NDArray[np.uint8]
"""For each word of a chunk, the group that retention masks put it in, below 4."""


@dataclass(frozen=True)
class ExactChanges:
    """The changes of a chunk, and the words that they apply to.

    Attributes:
        words: the chunk in the base; contiguous, of the dtype's word.
        positions: changed words, strictly increasing; at least one.
        steps: as many signed steps, none 0, within the word's bits.
        dtype: of the words.
        groups: for each word the retention masks in which changes were selected, bit m for mask m,
            below 4; None where there are no masks.
        word_counts: number of words by group and exponent, by
            :func:`patchc.kernels.histograms.count_words`; None to count them.
    """

    words: Words
    positions: Positions
    steps: Steps
    dtype: DType
    groups: Groups | None = None
    word_counts: Counts | None = None


@dataclass(frozen=True)
class Coding:
    """A chunk's body, and the bits that positions and steps take in it."""

    body: bytes
    bits: ChangeBits


@dataclass(frozen=True)
class ChunkBody:
    """A chunk's body, which may be hostile, and what else the patch says about the chunk.

    Attributes:
        data: the body.
        entries: changed words of the chunk.
        words: all words of the chunk.
        dtype: of the words.
        groups: of the words, by the retention masks that the chunk refers to; None without masks.
        additive: how additive values are stored, and their components.
    """

    data: bytes
    entries: int
    words: int
    dtype: DType
    groups: Groups | None = None
    additive: AdditiveValues = NO_VALUES


class Codec(Protocol):
    """Decodes the bodies of chunks. Each codec also encodes, from what it needs for that.

    Attributes:
        id: the number that stands for the codec in a patch file.
        name: the name for people.
        needs_words: whether bodies decode only given the words that they apply to.
        takes_masks: whether bodies may refer to retention masks.
        is_additive: whether bodies hold deltas of components and not exact steps.
    """

    id: ClassVar[int]
    name: ClassVar[str]
    needs_words: ClassVar[bool] = False
    takes_masks: ClassVar[bool] = False
    is_additive: ClassVar[bool] = False

    def decode(
        self, chunk: ChunkBody, words: Words | None = None, target: Side = "result"
    ) -> tuple[Positions, Steps]:
        """Read the exact changes of a chunk.

        Args:
            chunk: the body to decode.
            words: the chunk on the side across from ``target``, not changed here; None is enough
                for a codec that does not need them.
            target: the side that the changes lead to from ``words``.

        Returns:
            Exactly ``chunk.entries`` positions, strictly increasing and inside the chunk, and their
            steps from base to result, none 0.

        Raises:
            PatchFormatError: the body does not code that many changes of such a chunk.
            UsageError: words are needed and missing, or the codec has no exact steps.
        """
        raise UsageError("it holds additive values; read_deltas reads them")

    def change_words(
        self, chunk: ChunkBody, words: Words, target: Side, kept: Kept | None = None
    ) -> None:
        """Take all words of a chunk to side ``target``, in place; after an error they are garbage.

        Args:
            chunk, words, target: as for :meth:`decode`; ``words`` are changed here.
            kept: gets the positions of the words that change, and the words as they were.

        Raises:
            PatchFormatError, UsageError: as for :meth:`decode`, or there are too few or too many
                words.
        """
        positions, steps = self.decode(chunk, words, target)
        if len(words) != chunk.words:
            raise UsageError(f"it has {chunk.words} words, and {len(words)} are to be changed")
        if kept:
            kept[0][:], kept[1][:] = positions, words[positions]
        add_steps(words, positions, steps, chunk.dtype.total_order, target == "base")

    def decode_components(self, chunk: ChunkBody) -> list[ComponentEntries]:
        """Read what each component adds to a chunk, in the order of their numbers.

        Raises:
            PatchFormatError: the body does not code such entries.
            UsageError: the codec has exact steps.
        """
        raise UsageError("it holds exact steps; read_changes reads them")
