"""Codec 3, "conditional": changes coded given the words that they apply to (SPEC.md, section 6.4).

The decoder scans the chunk's words once, base words going forward and the result's going back.
"""

from __future__ import annotations

import numpy as np

from patchc.compiled import compiled, kernel, part
from patchc.dtypes import DType
from patchc.errors import PatchFormatError
from patchc.formats.codecs.classes import (
    ALL,
    EDGES,
    LOW,
    MOST_GROUPS,
    NONE,
    COUNTERS,
    POPULATIONS,
    class_map,
    exponent_of,
)
from patchc.formats.codecs.codec import Positions, Steps
from patchc.formats.codecs.levels import ALWAYS, level_tables, push_geometric
from patchc.formats.codecs.model import (
    MOST_FIELDS,
    MOST_TABLES,
    Model,
    empty_model,
    fill_classes,
    push_fields,
    read_model,
    table_starts,
    write_model,
)
from patchc.formats.codecs.plan import choose_levels, plan_model
from patchc.formats.codecs.rans import SCALE, Stack, fill_symbols, pack, unpack
from patchc.formats.codecs.scan import Groups, Words, rank_changes, scan
from patchc.formats.codecs.step_tokens import EVEN, SIGNED, SYMBOLS, push_step

CONDITIONAL_ID = 3
"""The codec's number in a patch file."""

_NO_GROUPS = np.zeros(1, np.uint8)


def encode_conditional(
    words: Words, positions: Positions, steps: Steps, dtype: DType, groups: Groups | None = None
) -> bytes:
    """Code the changes of a chunk.

    Args:
        words: the chunk in the base.
        positions: changed words, strictly increasing; at least one.
        steps: as many signed steps, none 0.
        dtype: of the words.
        groups: for each word the retention masks that it lies in, bit m for mask m, below 4;
            None where there are no masks.
    """
    members = _NO_GROUPS if groups is None else groups
    kinds = group_count(groups)
    mantissa, exponent_bits = exponent_of(dtype)
    model = empty_model()
    entries = np.zeros(kinds << exponent_bits, np.int64)
    classes = class_map(dtype, entries, edges=True)
    edges = np.zeros(LOW, np.bool_)
    bits = level_tables().hit_bits, level_tables().miss_bits
    plan_model(
        words, members, positions, steps, classes, kinds, dtype.word_bits, *bits, model, edges
    )
    fill_classes(model, kinds, exponent_bits, classes)
    populations = np.empty(len(positions), np.int32)
    ranks = np.empty(len(positions), np.uint32)
    counts = np.zeros(COUNTERS, np.int64)
    lows_of = np.zeros(LOW, np.int64)
    rank_changes(
        words, members, positions, steps, classes, lows_of, edges, populations, ranks, counts
    )
    choose_levels(model, kinds, populations, counts, steps, dtype.word_bits, *bits)
    out = np.empty(4 * len(positions) + MOST_FIELDS, np.uint32)
    starts = np.zeros((MOST_TABLES, SYMBOLS + 1), np.int64)
    table_starts(model, int(model.table_of.max()) + 1, starts)
    fields = np.empty((MOST_FIELDS, 2), np.int64)
    x, size = _encode(
        populations, ranks, steps, counts, model, kinds, exponent_bits, dtype.word_bits,
        *_level_arrays(), fields, out, starts, np.empty(POPULATIONS, np.int64),
    )  # fmt: skip
    return pack(int(x), out[:size])


def decode_conditional(
    body: bytes, words: Words, entries: int, dtype: DType, revert: bool,
    groups: Groups | None = None,
) -> tuple[Positions, Steps]:  # fmt: skip
    """Invert :func:`encode_conditional`; ``body`` may be hostile.

    Args:
        body: a chunk's body.
        words: the chunk in the base, or in the result with ``revert``.
        entries: changes in the chunk.
        dtype: of the words.
        revert: whether ``words`` are the result's.
        groups: as for the encoder.

    Returns:
        Exactly ``entries`` positions, strictly increasing, and the steps from base to result.

    Raises:
        PatchFormatError: the body is not a coding of ``entries`` changes of these words.
    """
    if not 0 < entries <= len(words):
        raise PatchFormatError(f"its record says {entries} changes of {len(words)} words")
    members = _NO_GROUPS if groups is None else groups
    kinds = group_count(groups)
    _, exponent_bits = exponent_of(dtype)
    x, stream = unpack(body)
    model = empty_model()
    good, x, at = read_model(x, 0, stream, kinds, exponent_bits, model)
    if not good:
        raise PatchFormatError("its body is corrupt: a field of its header is out of range")
    edges = bool((model.levels[EDGES:] != NONE).any())
    classes = class_map(dtype, np.zeros(kinds << exponent_bits, np.int64), edges)
    fill_classes(model, kinds, exponent_bits, classes)
    low_bits, tokens, _ = _level_arrays()
    positions, steps = np.empty(entries, np.uint32), np.empty(entries, np.int64)
    count, x, at = scan(
        np.uint64(x), at, stream, words, members, revert, classes, model,
        _symbol_slots(model), dtype.word_bits, low_bits, tokens, level_tables().slots,
        np.empty(COUNTERS, np.int64), positions, steps,
    )  # fmt: skip
    if count < 0:
        raise PatchFormatError("its body is corrupt, or it was not made for these words")
    if count != entries:
        raise PatchFormatError(f"its body codes {count} changes and its record says {entries}")
    if x != 1 or at != len(stream):
        raise PatchFormatError("its body holds bytes or bits that belong to nothing")
    return positions, steps


def group_count(groups: Groups | None) -> int:
    """1, 2 or 4 groups of words."""
    return 1 if groups is None else MOST_GROUPS


def _level_arrays():
    tables = level_tables()
    return tables.low_bits, tables.tokens, tables.starts


def _symbol_slots(model: Model):
    tables = int(model.table_of.max()) + 1
    starts = np.zeros((MOST_TABLES, SYMBOLS + 1), np.int64)
    table_starts(model, tables, starts)
    slots = np.zeros((tables, SCALE), np.uint32)
    _fill_slots(model, tables, starts, slots)
    return slots


@compiled
def _fill_slots(model, tables, starts, slots):
    for table in range(tables):
        if model.counts[table]:
            freqs = starts[table, 1:] - starts[table, :-1]
            fill_symbols(freqs, model.counts[table], slots[table])


@kernel
def _encode(
    populations, ranks, steps, counts, model, groups, exponent_bits, word_bits,
    low_bits, tokens, level_starts, fields, out, starts, following,
):  # fmt: skip
    x, at = np.uint64(1), np.int64(0)
    following[:] = -1
    for change in range(populations.size - 1, -1, -1):
        population = populations[change]
        x, at, following[population] = _push_gap(
            x, at, out, population, np.int64(ranks[change]), following, counts, model,
            low_bits, tokens, level_starts,
        )
        if population < EDGES:
            table = model.table_of[population]
            x, at = push_step(
                x, at, out, steps[change], table, model.kinds[table], model.table_levels[table],
                starts, word_bits, low_bits, tokens, level_starts,
            )
    for population in range(POPULATIONS - 1, -1, -1):
        if model.levels[population] != NONE:
            x, at, _ = _push_gap(
                x, at, out, population, np.int64(-1), following, counts, model,
                low_bits, tokens, level_starts,
            )
    fields_count = write_model(model, groups, exponent_bits, fields)
    return push_fields(x, at, out, fields, fields_count)


@part
def _push_gap(
    x, at, out, population, rank, following, counts, model, low_bits, tokens, level_starts
):
    level = model.levels[population]
    gap = following[population] - rank - 1
    if following[population] < 0:  # no more changes: any gap that reaches the end will do
        gap = counts[population] - rank - 1
        gap = (gap + (1 << low_bits[level]) - 1) >> low_bits[level] << low_bits[level]
    x, at = push_geometric(
        x, at, out, gap, level, low_bits, tokens, level_starts
    )
    return x, at, rank
