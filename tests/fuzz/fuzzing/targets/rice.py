"""Codec 1: a hostile body, and what it does to words and back."""

from __future__ import annotations

import numpy as np
from second_codecs import rice

from fuzzing.mutation import bodies
from fuzzing.mutation.draws import Draws
from fuzzing.target import Target, expect
from fuzzing.targets.chunks import are_changes, mutate_chunk, unpack, words_of
from patchc.formats.codecs import RICE
from patchc.formats.codecs.protocol import ChunkBody

_MOST_WORDS = 200_000
_FEW = 600
"""Changes that are checked in every way; interpreted loops are slow."""


def read(data: bytes) -> None:
    """Decode a body; change words by it and back; code the changes again."""
    head, body = unpack(data, _MOST_WORDS)
    chunk = ChunkBody(body, head.entries, head.words, head.dtype)
    positions, steps = RICE.decode(chunk)
    expect(are_changes(head, positions, steps), "the changes are not those of such a chunk")
    if len(positions) > _FEW:
        return
    both = list(zip(positions.tolist(), steps.tolist(), strict=True))
    expect(rice(body, head.words, head.dtype.word_bits) == both, "the page says otherwise")
    words = words_of(head)
    changed = words.copy()
    RICE.change_words(chunk, changed, "result")
    RICE.change_words(chunk, changed, "base")
    expect(np.array_equal(changed, words), "the changes do not go back")
    again = RICE.encode(positions, steps, head.words, head.dtype.word_bits).body
    found = RICE.decode(ChunkBody(again, head.entries, head.words, head.dtype))
    expect(np.array_equal(found[0], positions), "positions do not survive")
    expect(np.array_equal(found[1], steps), "steps do not survive")


def mutate(data: bytes, draws: Draws) -> bytes:
    """Change what the patch says of the chunk, or its body."""
    return mutate_chunk(data, draws, _MOST_WORDS, bodies.mutate_rice)


TARGET = Target(
    "rice",
    read,
    mutate,
    (
        "patchc.formats.codecs.rice",
        "patchc.formats.codecs.gap_tiles",
        "patchc.formats.codecs.golomb",
        "patchc.formats.codecs.protocol",
        "patchc.kernels.ulp_steps.cpu",
    ),
    executions=3000,
    most_bytes=1 << 10,
)
