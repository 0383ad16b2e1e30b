"""The encoder of codec 3: tries two ways to divide a chunk's words into classes."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.formats.change_bits import ChangeBits
from patchc.formats.codecs.conditional.encode.change_statistics import Changes, trace_changes
from patchc.formats.codecs.conditional.encode.choose_classes import plan_model, undivided_model
from patchc.formats.codecs.conditional.encode.choose_tables import choose_levels
from patchc.formats.codecs.conditional.encode.emit import Emission, ideal_bits, push_changes
from patchc.formats.codecs.conditional.encode.rank_changes import (
    RankedWords,
    find_populations,
    rank_changes,
    sift,
)
from patchc.formats.codecs.conditional.model.chunk_model import (
    ONE_GROUP,
    POPULATIONS,
    Layout,
    Model,
    codings_of,
    empty_model,
    exponent_of,
    layout_of,
    model_starts,
    ranges_of,
)
from patchc.formats.codecs.conditional.model.header import header_fields, push_fields
from patchc.formats.codecs.conditional.model.levels import level_costs, level_tables
from patchc.formats.codecs.conditional.model.rans import pack, pushes_of, symbol_lengths
from patchc.formats.codecs.conditional.model.window import make_window
from patchc.formats.codecs.protocol import Coding, ExactChanges
from patchc.kernels.histograms import count_words

_MOST_WORDS_OF_CHANGE = 5
_BATCH = 256
_SLACK = 64.0
"""Most bits by which a body's length differs from the expected one, without long raw runs."""


class ChunkEncoder:
    """Codes the changes of one chunk; the bytes depend on nothing but the changes."""

    def __init__(self, changes: ExactChanges) -> None:
        words, groups, bits = changes.words, changes.groups, exponent_of(changes.dtype)
        self._exact = changes
        self._groups = ONE_GROUP if groups is None else groups
        counts = changes.word_counts
        self._word_counts = count_words(words, *bits, groups) if counts is None else counts
        self._small = sift(words, groups, changes.positions, self._word_counts, *bits)

    def encode(self, grouped: bool) -> Coding:
        """The shortest body, for a decoder that has the groups or for one that has not."""
        exact, words, word_bits = self._exact, self._exact.words, self._exact.dtype.word_bits
        groups, word_counts = self._groups, self._word_counts
        if not grouped:
            groups, word_counts = ONE_GROUP, word_counts.sum(axis=0, keepdims=True)
        layout = layout_of(exact.dtype, grouped)
        changes = trace_changes(words, groups, exact.positions, exact.steps, layout)
        model, costs = empty_model(), level_costs()
        undivided = plan_model(words, changes, layout, word_counts, word_bits, costs, model)
        divided = _prepare(model, changes, self._small, words, layout)
        if not layout.exponent_bits:
            return divided.coding
        may_do = divided.about <= undivided or divided.least_bits <= undivided
        if may_do and 8 * len(divided.coding.body) <= undivided:
            return divided.coding
        model = undivided_model(changes, layout)
        ranked = RankedWords(words, groups, exact.positions)
        other = _prepare(model, changes, ranked, words, layout)
        likely, second = sorted((divided, other), key=lambda way: way.about)
        if second.least_bits > 8 * len(likely.coding.body):
            return likely.coding
        return min(divided.coding, other.coding, key=lambda coding: len(coding.body))


class _Way:
    """A body in the making: its last changes are pushed, so that the coder's state is large.

    Args:
        emission: all changes.
        fields: the header.
        gap_bits, step_bits: estimates of what gaps and steps take.
    """

    def __init__(
        self, emission: Emission, fields: NDArray[np.int64], gap_bits: float, step_bits: float
    ) -> None:
        self._emission, self._fields, self._gap_bits = emission, fields, gap_bits
        self._header_bits = int(fields[:, 1].sum())
        self._left = len(emission.sources)
        self._out = np.empty(_MOST_WORDS_OF_CHANGE * self._left + len(fields) + 1, np.uint32)
        self._x, self._at = np.uint64(1), 0
        while self._left and not self._at:
            end, self._left = self._left, max(0, self._left - _BATCH)
            x, self._at = push_changes(self._x, 0, self._out, emission, self._left, end)
            self._x = np.uint64(x)
        self.about = self._header_bits + gap_bits + step_bits
        """A first estimate of the body's length, in bits."""

    @cached_property
    def expected(self) -> tuple[float, float]:
        """The body's length in bits, and by how many bits it may be more or less.

        Where b raw bits move a word out, at least 32 − b bits of the state stay. The bits cut off
        below them are worth up to log₂(1 + 2^(b − 32)) bits, which is below 1.5 · 2^(b − 32). A
        step has two such runs at most.
        """
        lengths = symbol_lengths(self._emission.pushes)
        rest, runs = ideal_bits(self._emission, lengths, self._left)
        bits = float(32 * self._at + math.log2(self._x) + rest)
        return self._header_bits + bits, _SLACK + 3.0 * runs / (1 << 32)

    @property
    def least_bits(self) -> float:
        bits, doubt = self.expected
        return bits - doubt

    @cached_property
    def coding(self) -> Coding:
        out, fields = self._out, self._fields
        x, at = push_changes(self._x, self._at, out, self._emission, 0, self._left)
        x, at = push_fields(np.uint64(x), at, out, fields)
        body = pack(int(x), out[:at])
        change_bits = max(0.0, 8.0 * len(body) - self._header_bits)
        gap_bits = min(self._gap_bits, change_bits)
        return Coding(body, ChangeBits(gap_bits, change_bits - gap_bits))


def _prepare(
    model: Model, changes: Changes, ranked: RankedWords, words: Words, layout: Layout
) -> _Way:
    """Begin a body whose changes are coded by the classes of ``model``; fill in the rest of it."""
    word_bits = 8 * words.itemsize
    count = len(changes.positions)
    populations, usual = np.empty(count, np.int16), np.empty(len(changes.hits), np.int16)
    sources, gaps = np.empty(count, np.uint32), np.empty(count, np.uint32)
    find_populations(words, changes, layout, model, usual, populations, sources)
    ranges = ranges_of(model, layout)
    cursors = (np.cumsum(model.hits) - model.hits)[ranges.numbers]
    ends = cursors + model.hits[ranges.numbers]
    nexts, counts = np.zeros_like(cursors), np.zeros_like(cursors)
    rank_changes(
        ranked, changes.positions, changes.flips, np.int64(len(words)), layout, ranges,
        make_window(words, ranges), sources, cursors, ends, gaps, nexts, counts,
    )  # fmt: skip
    sizes = np.zeros(POPULATIONS, np.int64)
    sizes[ranges.numbers] = counts
    gap_bits, step_bits = choose_levels(
        model, layout, changes, usual, populations, sizes, word_bits, level_costs()
    )
    fields = header_fields(model, layout)
    emission = Emission(
        codings_of(model), changes.steps, changes.symbols, changes.flips, sources, gaps,
        pushes_of(model_starts(model)), level_tables(), np.int64(word_bits),
    )  # fmt: skip
    return _Way(emission, fields, gap_bits, step_bits)
