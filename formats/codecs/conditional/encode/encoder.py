"""The encoder of codec 3: two ways to divide a chunk's words into classes, and the shorter body."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import DType, Words
from patchc.formats.change_bits import ChangeBits
from patchc.formats.codecs.conditional.decode.decode_positions import scratch_for
from patchc.formats.codecs.conditional.encode.change_statistics import Changes, trace_changes
from patchc.formats.codecs.conditional.encode.choose_classes import plan_model, undivided_model
from patchc.formats.codecs.conditional.encode.choose_tables import choose_levels
from patchc.formats.codecs.conditional.encode.emit import (
    Draft,
    Emission,
    begin,
    expected_bits,
    finish,
)
from patchc.formats.codecs.conditional.encode.encode_ranks import (
    Field,
    find_populations,
    rank_changes,
    sift,
)
from patchc.formats.codecs.conditional.model.chunk_model import (
    Model,
    empty_model,
    model_starts,
    ranges_of,
)
from patchc.formats.codecs.conditional.model.classes import (
    MOST_GROUPS,
    ONE_GROUP,
    POPULATIONS,
    Groups,
    exponent_of,
    layout_of,
)
from patchc.formats.codecs.conditional.model.header import (
    FIELDS_OF_TABLE,
    OTHER_FIELDS,
    push_fields,
    write_model,
)
from patchc.formats.codecs.conditional.model.levels import level_tables
from patchc.formats.codecs.conditional.model.rans import pack, pushes_of
from patchc.formats.codecs.protocol import Coding, Positions, Steps
from patchc.kernels.histograms import Counts, count_words


class ChunkEncoder:
    """Codes the changes of one chunk; the bytes depend on nothing but the arguments.

    Args:
        words: the chunk in the base; contiguous, of the dtype's word.
        positions: changed words, strictly increasing; at least one.
        steps: as many signed steps, none 0, within the word's bits.
        dtype: of the words.
        groups: for each word the retention masks that it lies in, bit m for mask m, below 4;
            None where there are no masks.
        held: number of words by group and exponent, by :func:`count_words`; None to count them.
    """

    def __init__(
        self,
        words: Words,
        positions: Positions,
        steps: Steps,
        dtype: DType,
        groups: Groups | None = None,
        held: Counts | None = None,
    ) -> None:
        self._words, self._positions, self._steps, self._dtype = words, positions, steps, dtype
        self._groups = ONE_GROUP if groups is None else groups
        self._held = count_words(words, *exponent_of(dtype), groups) if held is None else held
        self._field = sift(words, groups, positions, self._held, *exponent_of(dtype))

    def encode(self, grouped: bool) -> Coding:
        """The shortest body, for a decoder that is given the groups or for one that is not."""
        words, dtype = self._words, self._dtype
        groups, kinds = (self._groups, MOST_GROUPS) if grouped else (ONE_GROUP, 1)
        held = self._held if grouped else self._held.sum(axis=0, keepdims=True)
        model, layout, costs = empty_model(), layout_of(dtype, kinds), level_tables().costs
        changes = trace_changes(words, groups, self._positions, self._steps, layout, kinds)
        undivided = plan_model(words, changes, layout, held, dtype.word_bits, costs, model)
        divided = _prepare(model, changes, self._field, words, kinds, dtype)
        if not layout.exponent_bits:
            return divided.coding
        may_do = divided.about <= undivided or divided.least_bits <= undivided
        if may_do and 8 * len(divided.coding.body) <= undivided:
            return divided.coding
        model = undivided_model(changes, layout, kinds)
        field = Field(words, groups, self._positions)
        other = _prepare(model, changes, field, words, kinds, dtype)
        likely, second = sorted((divided, other), key=lambda way: way.about)
        if second.least_bits > 8 * len(likely.coding.body):
            return likely.coding
        return min(divided.coding, other.coding, key=lambda coding: len(coding.body))


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
    def expected(self) -> tuple[float, float]:
        """The body's length in bits and how far off that may be, by :func:`expected_bits`."""
        bits, doubt = expected_bits(self.draft)
        return self.header_bits + bits, doubt

    @property
    def least_bits(self) -> float:
        """Bits that the body has at least."""
        bits, doubt = self.expected
        return bits - doubt

    @cached_property
    def coding(self) -> Coding:
        """The body, all of it."""
        x, at = finish(self.draft)
        x, at = push_fields(x, at, self.draft.out, self.fields, len(self.fields))
        body = pack(int(x), self.draft.out[:at])
        change_bits = max(0.0, 8.0 * len(body) - self.header_bits)
        gap_bits = min(self.gap_bits, change_bits)
        return Coding(body, ChangeBits(gap_bits, change_bits - gap_bits))


def _prepare(
    model: Model, changes: Changes, field: Field, words: Words, kinds: int, dtype: DType
) -> _Way:
    """Begin a body whose changes are coded by the classes of ``model``; fill in the rest of it."""
    levels, layout = level_tables(), layout_of(dtype, kinds)
    count = len(changes.positions)
    populations, usual = np.empty(count, np.int16), np.empty(len(changes.hits), np.int16)
    sources, gaps = np.empty(count, np.uint32), np.empty(count, np.uint32)
    find_populations(words, changes, layout, kinds, model, usual, populations, sources)
    ranges = ranges_of(model, kinds, layout)
    starts = np.cumsum(model.hits) - model.hits
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
    starts = model_starts(model)
    fields = np.empty((len(starts) * FIELDS_OF_TABLE + OTHER_FIELDS, 2), np.int64)
    fields = fields[: write_model(model, kinds, int(layout.exponent_bits), fields)]
    emission = Emission(
        model, changes, sources, gaps, pushes_of(starts), levels.low_bits, levels.tokens,
        levels.pushes, np.int64(dtype.word_bits),
    )  # fmt: skip
    return _Way(begin(emission, len(fields)), fields, gap_bits, step_bits)
