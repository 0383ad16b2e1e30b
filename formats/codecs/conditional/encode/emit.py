"""The encoder's last step: the changes, as symbols and raw bits, on the coder's state.

How long a body becomes can be told almost to the bit without making it, by the ideal lengths of all
symbols; that costs a fraction of the pushes, each of which waits for the one before.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.formats.codecs.conditional.encode.change_statistics import Changes
from patchc.formats.codecs.conditional.model.chunk_model import Model
from patchc.formats.codecs.conditional.model.classes import EDGES, POPULATIONS
from patchc.formats.codecs.conditional.model.levels import (
    geometric_bits,
    level_tables,
    push_geometric,
)
from patchc.formats.codecs.conditional.model.rans import Pushes, Stack, symbol_bits
from patchc.formats.codecs.conditional.model.step_tokens import (
    FLIPS,
    push_flips,
    push_step,
    raw_run,
    step_bits,
)
from patchc.jit import Integer, kernel

_MOST_WORDS_OF_CHANGE = 5
_BATCH = 256
SLACK = 64.0
"""Bits by which a body differs from what is expected, at most, but for long runs of raw bits."""


class Emission(NamedTuple):
    """What is to be pushed, and by which tables.

    Attributes:
        model: of the chunk.
        changes: of the chunk.
        sources: the changes, in the order in which they are popped.
        gaps: as many, before each of them.
        pushes: of each table of steps.
        low_bits, tokens, level_pushes: of all levels.
        word_bits: width of a word.
    """

    model: Model
    changes: Changes
    sources: NDArray[np.uint32]
    gaps: NDArray[np.uint32]
    pushes: Pushes
    low_bits: NDArray[np.int64]
    tokens: NDArray[np.int64]
    level_pushes: Pushes
    word_bits: np.int64


class Draft(NamedTuple):
    """A body that is begun: the last changes are pushed, so that the state is large.

    Attributes:
        emission: what to push.
        out, x, at: stack, state and end.
        left: changes that are yet to be pushed.
    """

    emission: Emission
    out: Stack
    x: np.uint64
    at: int
    left: int


def begin(emission: Emission, room: int) -> Draft:
    """Push the last changes, and leave ``room`` words free for what is pushed after the first."""
    left = len(emission.sources)
    out = np.empty(_MOST_WORDS_OF_CHANGE * left + room + 1, np.uint32)
    x, at = np.uint64(1), 0
    while left and not at:
        end, left = left, max(0, left - _BATCH)
        x, at = _push(np.uint64(x), at, out, emission, left, end)
    return Draft(emission, out, np.uint64(x), at, left)


def expected_bits(draft: Draft) -> tuple[float, float]:
    """The bits that all changes will take, and by how many those may be more or fewer.

    Where b raw bits move a word out, at least 32 − b bits of the state stay, and what is cut off
    below them is up to log₂(1 + 2^(b − 32)) bits, which is below 1.5 · 2^(b − 32). A step has two
    such runs at most.
    """
    table_bits, level_bits = symbol_bits(draft.emission.pushes), level_tables().symbol_bits
    rest, runs = _ideal_bits(draft.emission, table_bits, level_bits, draft.left)
    bits = float(32 * draft.at + math.log2(draft.x) + rest)
    return bits, SLACK + 3.0 * runs / (1 << 32)


def finish(draft: Draft) -> tuple[np.uint64, int]:
    """Push the changes that are left; return state and end."""
    x, at = _push(draft.x, draft.at, draft.out, draft.emission, 0, draft.left)
    return np.uint64(x), at


@kernel
def _push(
    x: Integer, at: Integer, out: Stack, emission: Emission, begin: Integer, end: Integer
) -> tuple[Integer, Integer]:  # fmt: skip
    """Push the changes from ``begin`` to ``end``, last first."""
    model, changes, word_bits = emission.model, emission.changes, emission.word_bits
    low_bits, tokens, level_pushes = emission.low_bits, emission.tokens, emission.level_pushes
    sources, gaps, pushes = emission.sources, emission.gaps, emission.pushes
    steps, symbols, flips = changes.steps, changes.symbols, changes.flips
    last = np.int64(sources.size)
    for population in range(POPULATIONS - 1, -1, -1):
        first = last - model.hits[population]
        level = model.levels[population]
        table = model.table_of[population] if population < EDGES else np.int64(0)
        kind, step_level = model.kinds[table], model.table_levels[table]
        slot, stop = min(last, end), max(first, begin)
        while slot > stop:
            slot -= 1
            if population < EDGES:
                change = sources[slot]
                if kind >= FLIPS:
                    own = np.uint64(flips[change])
                    x, at = push_flips(x, at, out, own, table, kind, pushes, word_bits)
                else:
                    step, symbol = steps[change], np.int64(symbols[change])
                    x, at = push_step(
                        x, at, out, step, symbol, table, kind, step_level, pushes,
                        low_bits, tokens, level_pushes,
                    )  # fmt: skip
            gap = np.int64(gaps[slot])
            x, at = push_geometric(x, at, out, gap, level, low_bits, tokens, level_pushes)
        last = first
    return x, at


@kernel
def _ideal_bits(
    emission: Emission, table_bits: NDArray[np.float64], level_bits: NDArray[np.float64],
    end: Integer,
) -> tuple[float, Integer]:  # fmt: skip
    """Ideal length of the changes before ``end``, from those of the symbols of all tables.

    Besides, the sum of 2^b over their runs of b raw bits; of a step's two, that of the longer.
    """
    model, changes, word_bits = emission.model, emission.changes, emission.word_bits
    low_bits, tokens = emission.low_bits, emission.tokens
    sources, gaps = emission.sources, emission.gaps
    steps, symbols, flips = changes.steps, changes.symbols, changes.flips
    bits = 0.0
    runs = np.int64(0)
    first = np.int64(0)
    for population in range(POPULATIONS):
        last = first + model.hits[population]
        level = model.levels[population]
        table = model.table_of[population] if population < EDGES else np.int64(0)
        kind, step_level = model.kinds[table], model.table_levels[table]
        for slot in range(first, min(last, end)):
            if population < EDGES:
                change = sources[slot]
                raw = raw_run(np.int64(symbols[change]), kind, step_level, word_bits, low_bits)
                runs += np.int64(1) << raw
                bits += step_bits(
                    steps[change], np.int64(symbols[change]),
                    np.uint64(flips[change]), table, kind, step_level, word_bits,
                    table_bits, low_bits, tokens, level_bits,
                )  # fmt: skip
            gap = np.int64(gaps[slot])
            bits += geometric_bits(gap, level, low_bits, tokens, level_bits)
            runs += np.int64(1) << low_bits[level]
        first = last
    return bits, runs
