"""The fixed grid of chunks over a tensor's words."""

from __future__ import annotations

from dataclasses import dataclass

PIECE_WORDS = 1 << 17
"""So few words stay in a core's cache from reading to their use, and so many are worth a call."""


@dataclass(frozen=True)
class Chunk:
    """Words ``first`` … ``first + count − 1`` of a tensor, as number ``number`` of its grid."""

    number: int
    first: int
    count: int


def grid(words: int, chunk_words: int) -> list[Chunk]:
    """The chunks of a tensor; only the last may be short, and an empty tensor has none."""
    return [
        Chunk(number, first, min(chunk_words, words - first))
        for number, first in enumerate(range(0, words, chunk_words))
    ]


def pieces(chunk: Chunk) -> list[Chunk]:
    """A chunk cut into runs of :data:`PIECE_WORDS`; only the last may be short, and each has the
    chunk's number."""
    end = chunk.first + chunk.count
    return [
        Chunk(chunk.number, first, min(PIECE_WORDS, end - first))
        for first in range(chunk.first, end, PIECE_WORDS)
    ]
