"""The fields of a chunk's header, written and read (SPEC.md, section 6.4.4).

Fields are raw bits of the stream. A number of open range is an exponential Golomb code of some
order k: b one-bits, a zero-bit, then b + k raw bits, for the b-th of ranges 2^(b + k) wide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.formats.codecs.conditional.model.chunk_model import Model, edge_level
from patchc.formats.codecs.conditional.model.classes import (
    ALL,
    EDGES,
    LOW,
    MOST_CLASSES,
    NONE,
    POPULATIONS,
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
from patchc.jit import Integer, compiled, inlined

FIELDS_OF_TABLE = 10 * SYMBOLS
OTHER_FIELDS = 64 * LOW
"""Room for the fields of a header: of each table, and besides."""

HITS_ORDER = 4
"""Of the number of changes of a population."""

_RANGES = 22  # of an open number; more cannot occur


@compiled
def write_model(
    model: Model, groups: Integer, exponent_bits: Integer, fields: NDArray[np.int64]
) -> Integer:
    """Put the header's fields into rows (value, bits); return their number."""
    at = 0
    for group in range(groups):
        first, last = model.firsts[group], model.firsts[group + 1] - 1
        at = _put_number(last - first, 2, at, fields)
        if last > first:
            at = _write_group(model, group, exponent_bits, at, fields)
    at = _put(np.int64(model.levels[ALL] != NONE), 1, at, fields)
    if model.levels[ALL] != NONE:
        at = _put(model.levels[ALL], 8, at, fields)
        at = _write_table(model, model.table_of[ALL], at, fields)
    stated = False
    for number in range(POPULATIONS):
        if model.levels[number] != NONE:
            if stated:
                at = _put_number(model.hits[number], HITS_ORDER, at, fields)
            stated = True
    return at


@inlined
def _write_group(
    model: Model, group: Integer, exponent_bits: Integer, at: Integer, fields: NDArray[np.int64]
) -> Integer:
    first, last = model.firsts[group], model.firsts[group + 1] - 1
    if exponent_bits:
        at = _put(model.tops[first], exponent_bits, at, fields)
        for number in range(first + 1, last):
            at = _put_number(model.tops[number] - model.tops[number - 1] - 1, 0, at, fields)
    for number in range(first, last):
        if number == first:
            at = _put(model.levels[number], 8, at, fields)
            at = _write_table(model, model.table_of[number], at, fields)
            continue
        at = _put_signed(model.levels[number - 1] - model.levels[number], 2, at, fields)
        same = model.table_of[number] == model.table_of[number - 1]
        at = _put(np.int64(same), 1, at, fields)
        if not same:
            at = _write_table(model, model.table_of[number], at, fields)
    if not exponent_bits:
        return at
    at = _put_number(model.lows[group], 1, at, fields)
    if model.lows[group]:
        at = _put(model.levels[LOW + group], 8, at, fields)
        at = _write_table(model, model.table_of[LOW + group], at, fields)
    lows = np.int64(model.lows[group])
    for number in range(first + max(np.int64(0), lows - 1), last):
        level = model.levels[EDGES + number]
        at = _put(np.int64(level != NONE), 1, at, fields)
        if level != NONE:
            at = _put_signed(edge_level(model, number) - level, 2, at, fields)
    return at


@inlined
def _write_table(model: Model, table: Integer, at: Integer, fields: NDArray[np.int64]) -> Integer:
    kind = model.kinds[table]
    count = model.counts[table]
    at = _put(min(kind, np.int64(FLIPS)), 2, at, fields)
    if kind == GEOMETRIC:
        return _put(model.table_levels[table], 8, at, fields)
    at = _put_number(count if kind >= FLIPS else count - 1, 2, at, fields)
    before = np.int64(HEAVIEST)
    for symbol in range(count):
        weight = np.int64(model.weights[table, symbol])
        at = _put_signed(before - weight, 1, at, fields)
        before = weight
    return at


@inlined
def _put(value: Integer, bits: Integer, at: Integer, fields: NDArray[np.int64]) -> Integer:
    fields[at, 0] = value
    fields[at, 1] = bits
    return at + 1


@inlined
def _put_number(value: Integer, order: Integer, at: Integer, fields: NDArray[np.int64]) -> Integer:
    while value >> order:
        at = _put(1, 1, at, fields)
        value -= 1 << order
        order += 1
    at = _put(0, 1, at, fields)
    return _put(value, order, at, fields)


@inlined
def _put_signed(value: Integer, order: Integer, at: Integer, fields: NDArray[np.int64]) -> Integer:
    return _put_number(2 * value - 1 if value > 0 else -2 * value, order, at, fields)


@compiled
def push_fields(
    x: Integer, at: Integer, out: Stack, fields: NDArray[np.int64], count: Integer
) -> tuple[Integer, Integer]:
    """Push a header's fields, last first."""
    for i in range(count - 1, -1, -1):
        x, at = push_bits(x, at, out, fields[i, 0], fields[i, 1])
    return x, at


@compiled
def read_model(
    x: Integer, at: Integer, stream: Stack, groups: Integer, exponent_bits: Integer,
    entries: Integer, model: Model,
) -> tuple[Integer, Integer, Integer]:  # fmt: skip
    """Pop the header of ``entries`` changes into an empty model.

    Returns:
        Whether it is in range, the state and the next word.
    """
    tables = 0
    for group in range(groups):
        count, x, at = _get_number(x, at, stream, 2)
        if count > (MOST_CLASSES if exponent_bits else 1):
            return False, x, at
        model.firsts[group + 1] = model.firsts[group] + count + 1
        if count:
            good, x, at, tables = _read_group(x, at, stream, group, exponent_bits, model, tables)
            if not good:
                return False, x, at
    some, x, at = pop_bits(x, at, stream, 1)
    if some:
        level, x, at = pop_bits(x, at, stream, 8)
        model.levels[ALL] = np.int64(level)
        model.table_of[ALL] = tables
        good, x, at = _read_table(x, at, stream, model, tables)
        if not good or model.levels[ALL] > ALWAYS:
            return False, x, at
    unstated = -1
    for number in range(POPULATIONS):
        if model.levels[number] != NONE:
            if unstated < 0:
                unstated = number
                continue
            model.hits[number], x, at = _get_number(x, at, stream, HITS_ORDER)
            entries -= model.hits[number]
    if unstated < 0 or entries < 0:
        return False, x, at
    model.hits[unstated] = entries
    return True, x, at


@inlined
def _read_group(
    x: Integer, at: Integer, stream: Stack, group: Integer, exponent_bits: Integer,
    model: Model, tables: Integer,
) -> tuple[Integer, Integer, Integer, Integer]:  # fmt: skip
    first, last = model.firsts[group], model.firsts[group + 1] - 1
    if exponent_bits:
        top, x, at = pop_bits(x, at, stream, exponent_bits)
        model.tops[first] = np.int64(top)
        for number in range(first + 1, last):
            width, x, at = _get_number(x, at, stream, 0)
            model.tops[number] = model.tops[number - 1] + 1 + width
        if model.tops[last - 1] >> exponent_bits:
            return False, x, at, tables
    for number in range(first, last):
        same = np.uint64(0)
        if number == first:
            level, x, at = pop_bits(x, at, stream, 8)
            model.levels[number] = np.int64(level)
        else:
            less, x, at = _get_signed(x, at, stream, 2)
            model.levels[number] = model.levels[number - 1] - less
            same, x, at = pop_bits(x, at, stream, 1)
        if not 0 <= model.levels[number] <= ALWAYS:
            return False, x, at, tables
        if not same:
            good, x, at = _read_table(x, at, stream, model, tables)
            if not good:
                return False, x, at, tables
            tables += 1
        model.table_of[number] = tables - 1
    if not exponent_bits:
        return True, x, at, tables
    lows, x, at = _get_number(x, at, stream, 1)
    if lows > last - first:
        return False, x, at, tables
    model.lows[group] = lows
    if lows:
        level, x, at = pop_bits(x, at, stream, 8)
        model.levels[LOW + group] = np.int64(level)
        good, x, at = _read_table(x, at, stream, model, tables)
        if not good or level > ALWAYS:
            return False, x, at, tables
        model.table_of[LOW + group] = tables
        tables += 1
    for number in range(first + max(0, lows - 1), last):
        some, x, at = pop_bits(x, at, stream, 1)
        if some:
            less, x, at = _get_signed(x, at, stream, 2)
            level = edge_level(model, number) - less
            if not 0 <= level <= ALWAYS:
                return False, x, at, tables
            model.levels[EDGES + number] = level
    return True, x, at, tables


@inlined
def _read_table(
    x: Integer, at: Integer, stream: Stack, model: Model, table: Integer
) -> tuple[Integer, Integer, Integer]:
    kind, x, at = pop_bits(x, at, stream, 2)
    model.kinds[table] = np.int64(kind)
    if model.kinds[table] == GEOMETRIC:
        level, x, at = pop_bits(x, at, stream, 8)
        model.table_levels[table] = np.int64(level)
        return level <= ALWAYS, x, at
    count, x, at = _get_number(x, at, stream, 2)
    if model.kinds[table] != FLIPS:
        count += 1
    elif count == 0:
        model.kinds[table] = RAW
        return True, x, at
    if count > (TOKENS if model.kinds[table] == EVEN else SYMBOLS):
        return False, x, at
    model.counts[table] = count
    before = np.int64(HEAVIEST)
    some = False
    for symbol in range(count):
        less, x, at = _get_signed(x, at, stream, 1)
        before -= less
        if not 0 <= before <= HEAVIEST:
            return False, x, at
        model.weights[table, symbol] = before
        some = some or before > 0
    return some, x, at


@inlined
def _get_number(
    x: Integer, at: Integer, stream: Stack, order: Integer
) -> tuple[Integer, Integer, Integer]:
    value = np.int64(0)
    for _ in range(_RANGES):
        more, x, at = pop_bits(x, at, stream, 1)
        if not more:
            break
        value += np.int64(1) << order
        order += 1
    low, x, at = pop_bits(x, at, stream, order)
    return value + np.int64(low), x, at


@inlined
def _get_signed(
    x: Integer, at: Integer, stream: Stack, order: Integer
) -> tuple[Integer, Integer, Integer]:
    value, x, at = _get_number(x, at, stream, order)
    return ((value + 1) >> 1 if value & 1 else -(value >> 1)), x, at
