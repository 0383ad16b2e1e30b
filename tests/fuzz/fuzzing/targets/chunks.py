"""What targets of codecs share: a chunk before a body, and the words that it changes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from fuzzing.mutation.draws import Draws
from patchc.dtypes import BY_NAME, DType, Words
from patchc.formats.codecs.protocol import Groups, Positions, Steps

DTYPES = tuple(
    map(BY_NAME.__getitem__, ("BF16", "F32", "F16", "F8_E4M3", "F64", "U8", "I32", "F4"))
)
_HEADER = struct.Struct("<BBIII")


@dataclass(frozen=True)
class Head:
    """The first bytes of an input: what a patch says about a chunk.

    Attributes:
        dtype: of the words.
        flags: eight choices of a target.
        words, entries: of the chunk.
        seed: of its words.
    """

    dtype: DType
    flags: int
    words: int
    entries: int
    seed: int

    def pack(self, body: bytes) -> bytes:
        """An input."""
        number = DTYPES.index(self.dtype)
        head = _HEADER.pack(number, self.flags, self.words - 1, self.entries, self.seed)
        return head + body


def unpack(data: bytes, most_words: int) -> tuple[Head, bytes]:
    """The chunk and the body of an input, whatever its bytes are."""
    number, flags, words, entries, seed = _HEADER.unpack(data[: _HEADER.size].ljust(14, b"\0"))
    dtype = DTYPES[number % len(DTYPES)]
    head = Head(dtype, flags, 1 + words % most_words, entries, seed)
    return head, data[_HEADER.size :]


def mutate_head(head: Head, draws: Draws) -> Head:
    """Change one field, seldom two."""
    fields = {
        "dtype": lambda: draws.choice(DTYPES),
        "flags": lambda: draws.number(head.flags, 8),
        "words": lambda: 1 + draws.number(head.words - 1, 17),
        "entries": lambda: draws.number(head.entries, 32 if draws.chance(0.1) else 12),
        "seed": lambda: draws.getrandbits(32),
    }
    chosen = {name: fields[name]() for name in draws.sample([*fields], draws.choice((1, 1, 2)))}
    return Head(**{**vars(head), **chosen})


def mutate_chunk(
    data: bytes, draws: Draws, most_words: int, mutate_body: Callable[[bytes, Draws], bytes]
) -> bytes:
    """Change what the patch says of the chunk, or its body."""
    head, body = unpack(data, most_words)
    if draws.chance(0.3):
        head = mutate_head(head, draws)
    else:
        body = mutate_body(body, draws)
    return head.pack(body)


def words_of(head: Head) -> Words:
    """Words that follow from the seed: by its last bits any, weights, or zeros among them."""
    dtype, count = head.dtype, head.words
    drawn = np.frombuffer(blake3(struct.pack("<I", head.seed)).digest(length=8 * count), "<u8")
    words = drawn.astype(dtype.word)
    if head.seed & 1 and dtype.total_order:
        lower = np.frombuffer(drawn.tobytes(), np.uint8)[7::8] & 7
        words = np.right_shift(words, lower.astype(dtype.word)).astype(dtype.word)
    return np.where(drawn >> 60 < 8, 0, words).astype(dtype.word) if head.seed & 2 else words


def groups_of(head: Head) -> Groups:
    """Groups that follow from the seed."""
    digest = blake3(struct.pack("<II", head.seed, 1)).digest(length=head.words)
    groups: NDArray[np.uint8] = np.frombuffer(digest, np.uint8) >> 6
    return np.ascontiguousarray(groups)


def are_changes(head: Head, positions: Positions, steps: Steps) -> bool:
    """Whether these are as many changes of such a chunk as its record says."""
    half = 1 << (head.dtype.word_bits - 1)
    return (
        len(positions) == len(steps) == head.entries
        and bool(np.all(np.diff(positions.astype(np.int64)) > 0))
        and (not len(positions) or int(positions[-1]) < head.words)
        and all(step and -half <= step < half for step in steps.tolist())
    )
