"""The encoder's last step: pushes the changes, as symbols and raw bits, on the coder's state.

The ideal lengths of all symbols give a body's length almost to the bit. That costs a fraction of
the pushes, each of which waits for the one before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.formats.codecs.conditional.model.chunk_model import (
    EDGES,
    HITS,
    KIND,
    LEVEL,
    POPULATIONS,
    STEP_LEVEL,
    TABLE,
    Codings,
)
from patchc.formats.codecs.conditional.model.levels import (
    LevelTables,
    geometric_bits,
    push_geometric,
)
from patchc.formats.codecs.conditional.model.rans import Pushes, Stack
from patchc.formats.codecs.conditional.model.step_tokens import (
    FLIPS,
    push_flips,
    push_step,
    raw_run,
    step_bits,
)
from patchc.formats.codecs.protocol import Steps
from patchc.jit import Integer, loop


class Emission(NamedTuple):
    """What to push, and by which tables.

    Attributes:
        codings: of the chunk's populations.
        steps, symbols, flips: of each change.
        sources: the changes, in the order in which they are popped.
        gaps: the gap before each of ``sources``.
        pushes: of each table of steps.
        levels: of all levels.
        word_bits: width of a word.
    """

    codings: Codings
    steps: Steps
    symbols: NDArray[np.uint8]
    flips: Words
    sources: NDArray[np.uint32]
    gaps: NDArray[np.uint32]
    pushes: Pushes
    levels: LevelTables
    word_bits: np.int64


@loop
def push_changes(
    x: Integer, at: Integer, out: Stack, emission: Emission, begin: Integer, end: Integer
) -> tuple[Integer, Integer]:  # fmt: skip
    """Push the changes from ``begin`` to ``end``, last first."""
    codings, steps, symbols, flips, sources, gaps, pushes, levels, word_bits = emission
    last = np.int64(sources.size)
    for population in range(POPULATIONS - 1, -1, -1):
        first = last - codings[population, HITS]
        level, table = codings[population, LEVEL], codings[population, TABLE]
        kind, step_level = codings[population, KIND], codings[population, STEP_LEVEL]
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
                        x, at, out, step, symbol, table, kind, step_level, pushes, levels
                    )
            x, at = push_geometric(x, at, out, np.int64(gaps[slot]), level, levels)
        last = first
    return x, at


@loop
def ideal_bits(
    emission: Emission, table_bits: NDArray[np.float64], end: Integer
) -> tuple[float, Integer]:
    """Ideal length of the changes before ``end``, in bits, from that of the symbols of all tables.

    Also returns the sum of 2^b over their runs of b raw bits; a step counts its longer run.
    """
    codings, steps, symbols, flips, sources, gaps, _, levels, word_bits = emission
    bits = 0.0
    runs: Integer = np.int64(0)
    first = np.int64(0)
    for population in range(POPULATIONS):
        last = first + codings[population, HITS]
        level, table = codings[population, LEVEL], codings[population, TABLE]
        kind, step_level = codings[population, KIND], codings[population, STEP_LEVEL]
        for slot in range(first, min(last, end)):
            if population < EDGES:
                change = sources[slot]
                step, symbol = steps[change], np.int64(symbols[change])
                runs += np.int64(1) << raw_run(symbol, kind, step_level, word_bits, levels)
                bits += step_bits(
                    step, symbol, np.uint64(flips[change]), table, kind, step_level, word_bits,
                    table_bits, levels,
                )  # fmt: skip
            bits += geometric_bits(np.int64(gaps[slot]), level, levels)
            runs += np.int64(1) << levels.low_bits[level]
        first = last
    return bits, runs
