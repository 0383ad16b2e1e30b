"""Codec 3, "conditional": changes coded given the words that they apply to (SPEC.md, section 6.4).

Small weights change before large ones, and by more steps; so positions and steps are coded by
classes of the words' exponents, with statistics that the chunk's own header states. The changes of
a class come one after the other; the decoder then finds their words in one scan of the chunk's, the
base's going forward and the result's going back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from patchc.compiled import Integer, compiled, kernel
from patchc.dtypes import DType
from patchc.errors import PatchFormatError
from patchc.formats.bits import ChangeBits
from patchc.formats.codecs.changes import Changes, trace_changes
from patchc.formats.codecs.classes import (
    ALL,
    EDGES,
    MOST_GROUPS,
    POPULATIONS,
    Groups,
    Words,
    exponent_of,
    layout_of,
)
from patchc.formats.codecs.codec import Coding, Positions, Steps
from patchc.formats.codecs.emit import SLACK, Draft, Emission, begin, expected_bits, finish
from patchc.formats.codecs.fit import choose_levels
from patchc.formats.codecs.levels import level_tables, pop_geometric
from patchc.formats.codecs.model import (
    FIELDS_OF_TABLE,
    OTHER_FIELDS,
    Model,
    empty_model,
    push_fields,
    ranges_of,
    read_model,
    table_starts,
    write_model,
)
from patchc.formats.codecs.plan import plan_model, undivided_model
from patchc.formats.codecs.rank import Field, find_populations, rank_changes, sift, sort_changes
from patchc.formats.codecs.rans import (
    SCALE,
    Pushes,
    Stack,
    Symbols,
    fill_pushes,
    fill_symbols,
    pack,
    unpack,
)
from patchc.formats.codecs.scan import place_changes, scratch_for
from patchc.formats.codecs.step_tokens import (
    FLIPS,
    SYMBOLS,
    pop_flips,
    pop_step,
)
from patchc.kernels.histograms import Counts, count_words

CONDITIONAL_ID = 3
"""The codec's number in a patch file."""

_ONE_GROUP = np.zeros(1, np.uint8)


def encode_conditional(
    words: Words,
    positions: Positions,
    steps: Steps,
    dtype: DType,
    groups: Groups | None = None,
    held: Counts | None = None,
) -> Coding:
    """Code the changes of a chunk; the bytes depend on nothing but the arguments.

    Args:
        words: the chunk in the base; contiguous, of the dtype's word.
        positions: changed words, strictly increasing; at least one.
        steps: as many signed steps, none 0, within the word's bits.
        dtype: of the words.
        groups: for each word the retention masks that it lies in, bit m for mask m, below 4;
            None where there are no masks.
        held: number of words by group and exponent, by :func:`count_words`; None to count them.
    """
    if held is None:
        held = count_words(words, *exponent_of(dtype), groups)
    members, kinds = _members(groups)
    levels = level_tables()
    model, layout = empty_model(), layout_of(dtype, kinds)
    changes = trace_changes(words, members, positions, steps, layout, kinds)
    undivided = plan_model(words, changes, layout, held, dtype.word_bits, levels.costs, model)
    field = sift(words, members, changes, layout, held)
    divided = _prepare(model, changes, field, words, kinds, dtype)
    coding = None
    if not layout.exponent_bits:
        return _finish(divided)
    if divided.about <= undivided or divided.bits <= undivided + SLACK:
        coding = _finish(divided)
        if 8 * len(coding.body) <= undivided:
            return coding
    model = undivided_model(changes, layout, kinds)
    other = _prepare(model, changes, Field(words, members, positions), words, kinds, dtype)
    if other.bits < divided.bits - SLACK:
        return _finish(other)
    coding = coding or _finish(divided)
    if other.bits > divided.bits + SLACK:
        return coding
    return min(coding, _finish(other), key=lambda way: len(way.body))


@dataclass(frozen=True)
class _Way:
    """A body that is begun.

    Attributes:
        draft: of its changes.
        fields: of its header.
        gap_bits, step_bits: about what gaps and steps take.
    """

    draft: Draft
    fields: NDArray[np.int64]
    gap_bits: float
    step_bits: float

    @cached_property
    def header_bits(self) -> int:
        return int(self.fields[:, 1].sum())

    @property
    def about(self) -> float:
        """A first estimate of the body's length, in bits."""
        return self.header_bits + self.gap_bits + self.step_bits

    @cached_property
    def bits(self) -> float:
        """The body's length in bits, by :func:`expected_bits`."""
        return self.header_bits + expected_bits(self.draft)


def _prepare(
    model: Model, changes: Changes, field: Field, words: Words, kinds: int, dtype: DType
) -> _Way:
    """Begin a body whose changes are coded by the classes of ``model``; fill in the rest of it."""
    levels, layout = level_tables(), layout_of(dtype, kinds)
    count = len(changes.positions)
    populations, usual = np.empty(count, np.int16), np.empty(len(changes.hits), np.int16)
    find_populations(words, changes, layout, kinds, model, usual, populations)
    ranges = ranges_of(model, kinds, layout)
    starts = np.cumsum(model.hits) - model.hits
    sources, gaps = np.empty(count, np.uint32), np.empty(count, np.uint32)
    sort_changes(populations, starts.copy(), sources)
    sizes = np.zeros(POPULATIONS, np.int64)
    counts, cursors = np.zeros_like(ranges.numbers), starts[ranges.numbers]
    rank_changes(
        field, changes.positions, changes.flips, np.int64(len(words)), layout, ranges,
        scratch_for(words, ranges), sources, cursors, cursors + model.hits[ranges.numbers], gaps,
        np.zeros_like(counts), counts,
    )  # fmt: skip
    sizes[ranges.numbers] = counts
    gap_bits, step_bits = choose_levels(
        model, kinds, changes, usual, populations, sizes, dtype.word_bits, levels.costs,
    )  # fmt: skip
    starts = _starts(model)
    fields = np.empty((len(starts) * FIELDS_OF_TABLE + OTHER_FIELDS, 2), np.int64)
    fields = fields[: write_model(model, kinds, int(layout.exponent_bits), fields)]
    emission = Emission(
        model, changes, sources, gaps, _pushes(starts), levels.low_bits, levels.tokens,
        levels.pushes, np.int64(dtype.word_bits),
    )  # fmt: skip
    return _Way(begin(emission, len(fields)), fields, gap_bits, step_bits)


def _finish(way: _Way) -> Coding:
    """The body, all of it."""
    x, at = finish(way.draft)
    x, at = push_fields(x, at, way.draft.out, way.fields, len(way.fields))
    body = pack(int(x), way.draft.out[:at])
    change_bits = max(0.0, 8.0 * len(body) - way.header_bits)
    gap_bits = min(way.gap_bits, change_bits)
    return Coding(body, ChangeBits(gap_bits, change_bits - gap_bits))


def decode_conditional(
    body: bytes,
    words: Words,
    entries: int,
    dtype: DType,
    revert: bool,
    groups: Groups | None = None,
) -> tuple[Positions, Steps]:
    """Invert :func:`encode_conditional`; ``body`` may be hostile.

    A hostile body may decode to changes that its writer never coded: what it promises, the digest
    of the result settles.

    Args:
        body: a chunk's body.
        words: the chunk in the base, or in the result with ``revert``; not changed here.
        entries: changes in the chunk.
        dtype: of the words.
        revert: whether ``words`` are the result's.
        groups: as for the encoder.

    Returns:
        Exactly ``entries`` positions, strictly increasing and below the number of words, and the
        steps from base to result, none 0.

    Raises:
        PatchFormatError: the body is not a coding of ``entries`` changes of these words.
    """
    if not 0 < entries <= len(words):
        raise PatchFormatError(f"its record says {entries} changes of {len(words)} words")
    members, kinds = _members(groups)
    layout = layout_of(dtype, kinds)
    x, stream = unpack(body)
    model = empty_model()
    good, x, at = read_model(x, 0, stream, kinds, int(layout.exponent_bits), entries, model)
    if not good:
        raise PatchFormatError("its body is corrupt: a field of its header is out of range")
    levels = level_tables()
    gaps, values = np.empty(entries, np.uint32), np.empty(entries, np.int64)
    x, at = _pop_changes(
        np.uint64(x), at, stream, model, _symbol_slots(_starts(model)), dtype.word_bits,
        np.int64(len(words)), levels.low_bits, levels.tokens, levels.slots, gaps, values,
    )  # fmt: skip
    if x != 1 or at != len(stream) - 1:
        raise PatchFormatError("its body is corrupt: it holds bits that belong to nothing")
    ranges = ranges_of(model, kinds, layout)
    ends = np.cumsum(model.hits)[ranges.numbers]
    flipped = np.zeros(POPULATIONS, np.bool_)
    flipped[: ALL + 1] = model.kinds[model.table_of] >= FLIPS
    positions, steps = np.empty(entries, np.uint32), np.empty(entries, np.int64)
    count = place_changes(
        words, members, revert, layout, ranges, scratch_for(words, ranges),
        flipped[ranges.numbers], ends - model.hits[ranges.numbers], ends, gaps, values,
        np.empty(len(ends), np.int64), positions, steps,
    )  # fmt: skip
    if count != entries:
        raise PatchFormatError("its body is corrupt, or was not made for these words")
    return positions, steps


def _members(groups: Groups | None) -> tuple[Groups, int]:
    """Groups as the loops take them, and how many there may be."""
    return (_ONE_GROUP, 1) if groups is None else (groups, MOST_GROUPS)


def _starts(model: Model) -> NDArray[np.int64]:
    """First slots of the symbols of the model's tables."""
    starts = np.zeros((int(model.table_of.max()) + 1, SYMBOLS + 1), np.int64)
    table_starts(model, starts)
    return starts


@compiled
def _pushes(starts: NDArray[np.int64]) -> Pushes:
    pushes = np.zeros((starts.shape[0], SYMBOLS, 2), np.uint64)
    for table in range(starts.shape[0]):
        fill_pushes(starts[table], SYMBOLS, pushes[table])
    return pushes


@compiled
def _symbol_slots(starts: NDArray[np.int64]) -> Symbols:
    slots = np.zeros((starts.shape[0], SCALE), np.uint32)
    for table in range(starts.shape[0]):
        fill_symbols(starts[table], SYMBOLS, slots[table])
    return slots


@kernel
def _pop_changes(
    x: Integer, at: Integer, stream: Stack, model: Model, symbol_slots: Symbols,
    word_bits: Integer, limit: Integer, low_bits: NDArray[np.int64], tokens: NDArray[np.int64],
    level_slots: Symbols, gaps: NDArray[np.uint32], values: NDArray[np.int64],
) -> tuple[Integer, Integer]:  # fmt: skip
    """Pop the changes of all populations: gaps, and steps or flipped bits (0 if out of range)."""
    change = np.int64(0)
    for population in range(POPULATIONS):
        level = model.levels[population]
        table = model.table_of[population] if population < EDGES else np.int64(0)
        kind = model.kinds[table]
        end = change + model.hits[population]
        while change < end:
            gap, x, at = pop_geometric(x, at, stream, level, low_bits, tokens, level_slots, limit)
            gaps[change] = np.uint32(min(gap, limit))
            if population >= EDGES:
                values[change] = 0
            elif kind >= FLIPS:
                flips, x, at = pop_flips(x, at, stream, table, kind, symbol_slots, word_bits)
                values[change] = np.int64(flips)
            else:
                values[change], x, at = pop_step(
                    x, at, stream, table, kind, model.table_levels[table], symbol_slots,
                    word_bits, low_bits, tokens, level_slots,
                )  # fmt: skip
            change += 1
    return x, at
