"""The fields of a chunk's header, written and read by the same functions (SPEC.md, section 6.4.4).

Fields are raw bits of the stream. A number of open range is an exponential Golomb code of some
order k: b one-bits, a zero-bit, then b + k raw bits, for the b-th of ranges 2^(b + k) wide.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.formats.codecs.conditional.model.chunk_model import (
    ALL,
    EDGES,
    LOW,
    MOST_CLASSES,
    NONE,
    POPULATIONS,
    Layout,
    Model,
    edge_level,
)
from patchc.formats.codecs.conditional.model.levels import ALWAYS
from patchc.formats.codecs.conditional.model.rans import Stack, pop_bits, push_bits
from patchc.formats.codecs.conditional.model.step_tokens import (
    EVEN,
    FLIPS,
    GEOMETRIC,
    HEAVIEST,
    RAW,
    SYMBOLS,
    TOKENS,
)
from patchc.jit import Integer, loop

_FIELDS_OF_TABLE = 10 * SYMBOLS
_OTHER_FIELDS = 64 * LOW
_NO_FIELDS = np.empty((0, 2), np.int64)
_NO_STREAM = np.frombuffer(
    b"", np.uint32
)  # read-only, as streams are: loops have one type for both

HITS_ORDER = 4
"""The order of the code of a population's number of changes."""

_RANGES = 22  # no number has more


class _Header(NamedTuple):
    """Where fields go, or where they come from.

    Attributes:
        fields: rows (value, bits), to be filled; without rows where a header is read.
        stream: from which a header is read.
        state: of the coder, one number.
        at: the next row of ``fields`` or the next word of ``stream``, one number.
    """

    fields: NDArray[np.int64]
    stream: Stack
    state: NDArray[np.uint64]
    at: NDArray[np.int64]


def header_fields(model: Model, layout: Layout) -> NDArray[np.int64]:
    """The header of a model as rows (value, bits)."""
    room = (int(model.table_of.max()) + 1) * _FIELDS_OF_TABLE + _OTHER_FIELDS
    fields, at = np.empty((room, 2), np.int64), np.zeros(1, np.int64)
    header = _Header(fields, _NO_STREAM, np.zeros(1, np.uint64), at)
    _code_model(header, model, layout, model.hits.sum())
    return fields[: at[0]]


@loop
def push_fields(
    x: Integer, at: Integer, out: Stack, fields: NDArray[np.int64]
) -> tuple[Integer, Integer]:
    """Push a header's fields, last first."""
    for i in range(len(fields) - 1, -1, -1):
        x, at = push_bits(x, at, out, fields[i, 0], fields[i, 1])
    return x, at


def read_model(
    x: np.uint64, stream: Stack, entries: int, layout: Layout, model: Model
) -> tuple[bool, np.uint64, int]:
    """Pop the header of ``entries`` changes into an empty model.

    Returns:
        Whether all fields are in range, the state and the next word.
    """
    header = _Header(_NO_FIELDS, stream, np.full(1, x), np.zeros(1, np.int64))
    good = _code_model(header, model, layout, np.int64(entries))
    return good, header.state[0], int(header.at[0])


@loop
def _code_model(header: _Header, model: Model, layout: Layout, entries: Integer) -> bool:
    """Write a model, or read it; return whether all fields are in range."""
    good, tables = True, np.int64(0)
    for group in range(layout.group_count):
        first = model.firsts[group]
        count = _code_number(header, model.firsts[group + 1] - 1 - first, 2)
        if count > (MOST_CLASSES if layout.exponent_bits else 1):
            return False
        model.firsts[group + 1] = first + count + 1
        if count:
            fits, tables = _code_group(header, model, layout, group, tables)
            good &= fits
    if _code_bits(header, np.int64(model.levels[ALL] != NONE), 1):
        good &= _code_population(header, model, ALL, tables)
    unstated = -1
    for number in range(POPULATIONS):
        if model.levels[number] != NONE:
            if unstated < 0:
                unstated = number
                continue
            model.hits[number] = _code_number(header, model.hits[number], HITS_ORDER)
            entries -= model.hits[number]
    if not good or unstated < 0 or entries < 0:
        return False
    model.hits[unstated] = entries
    return True


@loop
def _code_group(
    header: _Header, model: Model, layout: Layout, group: Integer, tables: Integer
) -> tuple[bool, Integer]:
    first, last = model.firsts[group], model.firsts[group + 1] - 1
    tops, levels = model.tops, model.levels
    if layout.exponent_bits:
        tops[first] = _code_bits(header, tops[first], np.int64(layout.exponent_bits))
        for number in range(first + 1, last):
            least = tops[number - 1] + 1
            tops[number] = least + _code_number(header, tops[number] - least, 0)
    good = _code_population(header, model, first, tables)
    tables += 1
    for number in range(first + 1, last):
        before = levels[number - 1]
        levels[number] = before - _code_signed(header, before - levels[number], 2)
        good &= 0 <= levels[number] <= ALWAYS
        same = model.table_of[number] == model.table_of[number - 1]
        if not _code_bits(header, np.int64(same), 1):
            good &= _code_table(header, model, tables)
            tables += 1
        model.table_of[number] = tables - 1
    if not layout.exponent_bits:
        return good, tables
    lows = _code_number(header, model.lows[group], 1)
    if lows > last - first or tops[last - 1] > np.int64(layout.exponent_mask):
        return False, tables
    model.lows[group] = lows
    if lows:
        good &= _code_population(header, model, LOW + group, tables)
        tables += 1
    for number in range(first + max(0, lows - 1), last):
        if _code_bits(header, np.int64(levels[EDGES + number] != NONE), 1):
            level = edge_level(model, number)
            less = _code_signed(header, level - levels[EDGES + number], 2)
            levels[EDGES + number] = level - less
            good &= 0 <= level - less <= ALWAYS
    return good, tables


@loop
def _code_population(header: _Header, model: Model, population: Integer, table: Integer) -> bool:
    """Write or read a population's level and its own table."""
    level = _code_bits(header, model.levels[population], 8)
    model.levels[population] = level
    model.table_of[population] = table
    good: bool = _code_table(header, model, table) and level <= ALWAYS
    return good


@loop
def _code_table(header: _Header, model: Model, table: Integer) -> bool:
    kind = _code_bits(header, min(model.kinds[table], np.int64(FLIPS)), 2)
    model.kinds[table] = kind
    if kind == GEOMETRIC:
        level = _code_bits(header, model.table_levels[table], 8)
        model.table_levels[table] = level
        return bool(level <= ALWAYS)
    least = np.int64(kind != FLIPS)
    count = least + _code_number(header, model.counts[table] - least, 2)
    if count == 0:
        model.kinds[table] = RAW
        return True
    if count > (TOKENS if kind == EVEN else SYMBOLS):
        return False
    model.counts[table] = count
    weight = np.int64(HEAVIEST)
    good, some = True, False
    for symbol in range(count):
        weight -= _code_signed(header, weight - np.int64(model.weights[table, symbol]), 1)
        model.weights[table, symbol] = weight
        good &= 0 <= weight <= HEAVIEST
        some |= weight > 0
    return bool(good and some)


@loop
def _code_signed(header: _Header, value: Integer, order: Integer) -> Integer:
    coded = _code_number(header, 2 * value - 1 if value > 0 else -2 * value, order)
    return (coded + 1) >> 1 if coded & 1 else -(coded >> 1)


@loop
def _code_number(header: _Header, value: Integer, order: Integer) -> Integer:
    start = np.int64(0)
    for _ in range(_RANGES):
        if not _code_bits(header, np.int64((value - start) >> order > 0), 1):
            break
        start += np.int64(1) << order
        order += 1
    return start + _code_bits(header, value - start, order)


@loop
def _code_bits(header: _Header, value: Integer, bits: Integer) -> Integer:
    """Write ``value``, or read what is there instead; return it."""
    at = header.at[0]
    if len(header.fields):
        header.fields[at, 0], header.fields[at, 1] = value, bits
        header.at[0] = at + 1
        return np.int64(value)
    popped, state, at = pop_bits(header.state[0], at, header.stream, bits)
    header.state[0], header.at[0] = state, at
    return np.int64(popped)
