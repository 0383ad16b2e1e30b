"""Decodes a body: its header, then the changes of each population, then the words they mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.buffers import ThreadBuffer
from patchc.dtypes import Words
from patchc.errors import PatchFormatError
from patchc.formats.codecs.conditional.decode.place_changes import ChangeQueues, place_changes
from patchc.formats.codecs.conditional.model.chunk_model import (
    ALL,
    EDGES,
    HITS,
    KIND,
    LEVEL,
    ONE_GROUP,
    POPULATIONS,
    STEP_LEVEL,
    TABLE,
    Codings,
    codings_of,
    empty_model,
    layout_of,
    model_starts,
    ranges_of,
)
from patchc.formats.codecs.conditional.model.header import read_model
from patchc.formats.codecs.conditional.model.levels import LevelTables, level_tables, pop_geometric
from patchc.formats.codecs.conditional.model.rans import Stack, Symbols, symbols_of, unpack
from patchc.formats.codecs.conditional.model.step_tokens import FLIPS, pop_flips, pop_step
from patchc.formats.codecs.conditional.model.window import make_window
from patchc.formats.codecs.protocol import ChunkBody, Positions, Steps
from patchc.jit import Integer, loop
from patchc.sides import Side

_gap_buffer, _value_buffer = ThreadBuffer(), ThreadBuffer()


def decode_changes(
    chunk: ChunkBody, words: Words, target: Side, positions: Positions, steps: Steps,
    results: Words, before: Words,
) -> None:  # fmt: skip
    """Fill ``positions`` and ``steps``; or, where ``results`` are ``words``, change these instead.

    Then ``before``, unless it is empty, gets the words that change, and ``positions`` theirs.

    Raises:
        PatchFormatError: the body is not a coding of as many changes of these words.
    """
    layout = layout_of(chunk.dtype, chunk.groups is not None)
    x, stream = unpack(chunk.data)
    model = empty_model()
    good, x, at = read_model(x, stream, chunk.entries, layout, model)
    if not good:
        raise PatchFormatError("its body is corrupt: a field of its header is out of range")
    gaps = _gap_buffer(chunk.entries, np.uint32)
    values = _value_buffer(chunk.entries, np.int64)
    x, at = _pop_changes(
        x, at, stream, codings_of(model), symbols_of(model_starts(model)), level_tables(),
        chunk.dtype.word_bits, np.int64(len(words)), gaps, values,
    )  # fmt: skip
    if x != 1 or at != len(stream) - 1:
        raise PatchFormatError("its body is corrupt: it holds bits that belong to nothing")
    ranges = ranges_of(model, layout)
    flipped = np.zeros(POPULATIONS, np.bool_)
    flipped[: ALL + 1] = model.kinds[model.table_of] >= FLIPS
    ends = np.cumsum(model.hits)[ranges.numbers]
    queues = ChangeQueues(
        gaps, values, flipped[ranges.numbers], ends - model.hits[ranges.numbers], ends,
        np.empty(len(ends), np.int64),
    )  # fmt: skip
    count = place_changes(
        words, ONE_GROUP if chunk.groups is None else chunk.groups, target == "base", layout,
        ranges, make_window(words, ranges), queues, positions, steps, results,
        before,
    )  # fmt: skip
    if count != chunk.entries:
        raise PatchFormatError("its body is corrupt, or was not made for these words")


@loop
def _pop_changes(
    x: Integer, at: Integer, stream: Stack, codings: Codings, slots: Symbols, levels: LevelTables,
    word_bits: Integer, limit: Integer, gaps: NDArray[np.uint32], values: NDArray[np.int64],
) -> tuple[Integer, Integer]:  # fmt: skip
    """Pop the changes of all populations: gaps, and steps or flipped bits (0 if out of range)."""
    change = np.int64(0)
    for population in range(POPULATIONS):
        level, table = codings[population, LEVEL], codings[population, TABLE]
        kind, step_level = codings[population, KIND], codings[population, STEP_LEVEL]
        end = change + codings[population, HITS]
        while change < end:
            gap, x, at = pop_geometric(x, at, stream, level, levels, limit)
            gaps[change] = np.uint32(min(gap, limit))
            if population >= EDGES:
                values[change] = 0
            elif kind >= FLIPS:
                flips, x, at = pop_flips(x, at, stream, table, kind, slots, word_bits)
                values[change] = np.int64(flips)
            else:
                values[change], x, at = pop_step(
                    x, at, stream, table, kind, step_level, slots, word_bits, levels
                )
            change += 1
    return x, at
