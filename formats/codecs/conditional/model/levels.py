"""Geometric numbers, coded by a table that follows from one small number, the level.

SPEC.md, section 6.4.2. Gaps between changes are nearly geometric among words of one class, and so
are the sizes of many steps. A level is the odds of a change, in quarter octaves. It gives, by
integers alone, a number of raw low bits and the frequencies of the tokens above them. The last
token means "that many more, and another code follows", which suits a geometric law.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.formats.codecs.conditional.model.rans import (
    SCALE,
    Pushes,
    Stack,
    Symbols,
    pop,
    pop_bits,
    push,
    push_bits,
    pushes_of,
    symbol_lengths,
    symbols_of,
)
from patchc.jit import Integer, inlined, loop

EVEN_LEVEL = 96
"""The level of even odds."""

COARSEST = 88
"""Below this level, tokens count groups of numbers, and the number within a group is raw."""

ALWAYS = 145
"""The level of certainty: every number is 0 and costs nothing."""

LEVELS = ALWAYS + 1
MOST_TOKENS = 40
_REACH = 5  # levels, an octave and a quarter
_ONE = 1 << 32
_QUARTERS = (1 << 32, 5107605667, 6074000999, 7223345211)
"""2^(i/4), times 2^32."""


class Costs(NamedTuple):
    """Costs by which the encoder chooses.

    Attributes:
        hits, misses: average bits of a changed word, and of an unchanged word, at each level.
        logs: log₂ of the whole numbers up to ``SCALE``.
    """

    hits: NDArray[np.float64]
    misses: NDArray[np.float64]
    logs: NDArray[np.float64]


class LevelTables(NamedTuple):
    """The tables of all levels.

    Attributes:
        low_bits: raw bits below the token.
        tokens: number of tokens before the one that continues.
        slots, pushes: tables for decoding and for encoding.
        symbol_bits: ideal length of each token.
    """

    low_bits: NDArray[np.int64]
    tokens: NDArray[np.int64]
    slots: Symbols
    pushes: Pushes
    symbol_bits: NDArray[np.float64]


def level_tables() -> LevelTables:
    """The tables of all levels; built once."""
    return _build()[0]


def level_costs() -> Costs:
    """What choosing each level costs; built once."""
    return _build()[1]


@cache
def _build() -> tuple[LevelTables, Costs]:
    low_bits = np.zeros(LEVELS, np.int64)
    tokens = np.ones(LEVELS, np.int64)
    starts = np.zeros((LEVELS, MOST_TOKENS + 2), np.int64)
    hit_bits, miss_bits = np.zeros(LEVELS), np.full(LEVELS, 1e9)
    for level in range(ALWAYS):
        low_bits[level] = max(0, (COARSEST - level + 3) // 4)
        cuts, stay = token_starts(level + 4 * int(low_bits[level]))
        tokens[level] = len(cuts) - 2
        starts[level, : len(cuts)] = cuts
        stays = (stay / _ONE) ** (0.5 ** low_bits[level])
        hit_bits[level], miss_bits[level] = -np.log2(1 - stays), -np.log2(stays)
    starts[ALWAYS, 1:3] = SCALE
    slots, pushes = symbols_of(starts), pushes_of(starts)
    logs = np.array([0.0, *map(math.log2, range(1, SCALE + 1))])
    costs = Costs(hit_bits, miss_bits, logs)
    return LevelTables(low_bits, tokens, slots, pushes, symbol_lengths(pushes)), costs


def token_starts(level: int) -> tuple[list[int], int]:
    """Slots at which the tokens of a level without raw bits start, and 2^32 · P(no change).

    Token t starts at slot floor(4096 · (1 − s^t)), where s is the probability of no change. The
    tokens end before the first whose share falls below 4/4096; one token stands for the rest.
    """
    octave, quarter = divmod(level - EVEN_LEVEL, 4)
    odds = _QUARTERS[quarter] << octave if octave >= 0 else _QUARTERS[quarter] >> -octave
    stay = _ONE * _ONE // (_ONE + odds)
    starts, survive = [0], _ONE
    while survive * (_ONE - stay) >> 32 >= 4 << 20 or len(starts) == 1:
        survive = survive * stay >> 32
        starts.append((_ONE - survive) >> 20)
    return [*starts, SCALE], stay


@loop
def best_level(hits: Integer, words: Integer, costs: Costs) -> tuple[Integer, float]:
    """The level with the shortest code of ``hits`` changes among ``words`` words, and its bits.

    Only levels around that of the exact odds are tried; no other can be the best.
    """
    if hits == words:
        return ALWAYS, 0.0
    first: Integer = 0
    last: Integer = ALWAYS
    if 0 < hits < words:
        near = np.int64(EVEN_LEVEL + 4.0 * np.log2(hits / (words - hits)))
        first = min(max(near - _REACH, 0), ALWAYS - 2 * _REACH)
        last = first + 2 * _REACH
    best, best_bits = 0, 1e300
    for level in range(first, last):
        bits = hits * costs.hits[level] + (words - hits) * costs.misses[level]
        if bits < best_bits:
            best, best_bits = level, bits
    return best, best_bits


@inlined
def log2(number: Integer, costs: Costs) -> float:
    """log₂ of a whole number above 0, looked up where it is small."""
    return float(costs.logs[number] if number <= SCALE else np.log2(number))


@inlined
def push_geometric(
    x: Integer, at: Integer, out: Stack, value: Integer, level: Integer, levels: LevelTables
) -> tuple[Integer, Integer]:
    """Push ``value`` with the tables of one level; return state and end."""
    low_bits, tokens = levels.low_bits[level], levels.tokens[level]
    token = value >> low_bits
    x, at = push_bits(x, at, out, value & ((1 << low_bits) - 1), low_bits)
    repeats = np.int64(0)
    if token >= tokens:
        repeats = token // tokens
        token -= repeats * tokens
    x, at = push(x, at, out, levels.pushes, level, token)
    for _ in range(repeats):
        x, at = push(x, at, out, levels.pushes, level, tokens)
    return x, at


@inlined
def geometric_bits(value: Integer, level: Integer, levels: LevelTables) -> float:
    """Ideal length of ``value``."""
    low_bits, tokens, bits = levels.low_bits[level], levels.tokens[level], levels.symbol_bits
    token = value >> low_bits
    length: Any = low_bits + 0.0
    if token >= tokens:
        length += token // tokens * bits[level, tokens]
        token %= tokens
    return float(length + bits[level, token])


@inlined
def pop_geometric(
    x: Integer, at: Integer, stream: Stack, level: Integer, levels: LevelTables, limit: Integer
) -> tuple[Integer, Integer, Integer]:
    """Pop a value; one above ``limit`` may come out as any number above it."""
    low_bits, tokens = levels.low_bits[level], levels.tokens[level]
    total: Integer = np.int64(0)
    token, x, at = pop(x, at, stream, levels.slots, level)
    while token == tokens and total <= limit:
        total += tokens << low_bits
        token, x, at = pop(x, at, stream, levels.slots, level)
    low, x, at = pop_bits(x, at, stream, low_bits)
    return total + (token << low_bits) + np.int64(low), x, at
