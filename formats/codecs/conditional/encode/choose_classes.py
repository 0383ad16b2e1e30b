"""The encoder's first choice: which exponents share a class.

The classes are those with the shortest expected code; any others would decode as well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.formats.codecs.conditional.encode.change_statistics import Changes
from patchc.formats.codecs.conditional.encode.choose_tables import (
    add_steps,
    best_table,
    estimated_bits,
    sum_up,
)
from patchc.formats.codecs.conditional.model.chunk_model import (
    Layout,
    Model,
    empty_model,
    exponent_in,
)
from patchc.formats.codecs.conditional.model.levels import Costs, best_level
from patchc.formats.codecs.conditional.model.step_tokens import HISTOGRAM, SYMBOLS, Weights
from patchc.jit import Integer, loop
from patchc.kernels.histograms import Counts

MOST_BINS = 40
_CLASS_BITS = 6.0
_HEADER_BITS = 22.0  # of one class alone without its exponent, and a last byte
_FAR = 1e300
_WORDS, _HITS, _RAW = 0, 1, 2  # totals of a bin; the last is the raw bits of its steps


class _Bins(NamedTuple):
    """Exponents of a group that are never told apart: those up to a *top*, above the one before it.

    Attributes:
        totals: words, changes and raw bits of the steps of each bin.
        histograms: of the steps of each bin.
        crossings: changes that cross the bin's upper edge.
        spans: changes from each bin to each higher one, or back.
    """

    totals: NDArray[np.int64]
    histograms: NDArray[np.int64]
    crossings: NDArray[np.float64]
    spans: NDArray[np.int64]


class _Space(NamedTuple):
    """Room for what is computed on the way, so that no loop has to allocate.

    Attributes:
        cuts: filled; the end of each class.
        symbols, class_of, words_of, crossed: of bins or of classes.
        before, edge_bits, best: of each cut.
        histogram: of the steps of a class.
        freqs: of the symbols of a table.
    """

    cuts: NDArray[np.int64]
    symbols: NDArray[np.int64]
    class_of: NDArray[np.int64]
    words_of: NDArray[np.int64]
    crossed: NDArray[np.int64]
    before: NDArray[np.int64]
    edge_bits: NDArray[np.float64]
    best: NDArray[np.float64]
    histogram: NDArray[np.int64]
    freqs: NDArray[np.int64]


def plan_model(
    words: Words, changes: Changes, layout: Layout, word_counts: Counts, word_bits: int,
    costs: Costs, model: Model,
) -> float:  # fmt: skip
    """Choose the classes of each group, and the lowest ones; fills those fields of ``model``.

    Returns:
        About the bits of a body whose groups have one class of all exponents each.
    """
    hits = changes.hits.reshape(word_counts.shape)
    tops = [np.flatnonzero(own)[-MOST_BINS:] for own in hits]
    exponents = np.arange(word_counts.shape[1])
    bin_of = np.stack([np.searchsorted(own, exponents) for own in tops])
    most = max(map(len, tops)) + 1
    crossings = np.zeros((len(tops), most))
    spans = np.zeros((len(tops), most, most), np.int64)
    _count_crossings(words, changes, layout, bin_of, crossings, spans)
    undivided = 0.0
    for group, own_tops in enumerate(tops):
        first, count, bits = model.firsts[group], 0, 3.0
        if len(own_tops):
            totals, histograms = _fill_bins(changes, group, own_tops, word_counts[group])
            bins = _Bins(totals, histograms, crossings[group], spans[group])
            space = _space(len(own_tops))
            count, model.lows[group], bits = _plan_group(
                bins, space, np.int64(layout.exponent_bits), word_counts[group].sum(),
                np.int64(len(words)), np.int64(word_bits), costs, model.weights[0],
            )  # fmt: skip
            model.tops[first : first + count] = own_tops[space.cuts[:count] - 1]
        model.firsts[group + 1] = first + count + 1
        undivided += bits
    return undivided


def undivided_model(changes: Changes, layout: Layout) -> Model:
    """A model in which each group with changes has one class of all words, which none leaves."""
    model = empty_model()
    changed = changes.hits.reshape(layout.group_count, -1).any(axis=1)
    model.firsts[1 : layout.group_count + 1] = np.cumsum(1 + changed)
    model.tops[model.firsts[: layout.group_count]] = layout.exponent_mask
    return model


def _fill_bins(
    changes: Changes, group: int, tops: NDArray[np.int64], word_counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Totals and histograms of a group's bins: all exponents with changes, or the greatest."""
    cells, end = group * len(word_counts), tops[-1] + 1
    hits = changes.hits[cells : cells + end]
    used = changes.histograms[changes.rows[cells + np.flatnonzero(hits)]]
    spare = len(used) - len(tops)
    histograms = used[spare:]
    histograms[0] += used[:spare].sum(axis=0)
    starts = np.concatenate(([0], tops[:-1] + 1))
    totals = np.zeros((len(tops), 3), np.int64)
    totals[:, _WORDS] = np.add.reduceat(word_counts[:end], starts)
    totals[:, _HITS] = np.add.reduceat(hits, starts)
    return totals, histograms


def _space(bins: int) -> _Space:
    cuts, symbols, class_of, words_of, crossed, before = np.zeros((6, bins + 1), np.int64)
    edge_bits, best = np.zeros((2, bins + 1))
    histogram, freqs = np.empty(HISTOGRAM, np.int64), np.empty(SYMBOLS, np.int64)
    return _Space(
        cuts, symbols, class_of, words_of, crossed, before, edge_bits, best, histogram, freqs
    )


@loop
def _count_crossings(
    words: Words, changes: Changes, layout: Layout, bin_of: NDArray[np.int64],
    crossings: NDArray[np.float64], spans: NDArray[np.int64],
) -> None:  # fmt: skip
    """Count the changes from bin to bin in each group, without steps between neighbouring words.

    Args:
        words, changes, layout: of the chunk.
        bin_of: the bin of each exponent, by group.
        crossings: added to; by group and bin, the shares of changes that cross its upper edge.
        spans: added to; by group, lower and higher bin, the changes between the two.
    """
    for i in range(changes.crossers.size):
        change = changes.crossers[i]
        group = np.int64(np.uint64(changes.cells[change]) >> layout.exponent_bits)
        word = np.uint64(words[changes.positions[change]])
        result = word ^ np.uint64(changes.flips[change])
        here = bin_of[group, exponent_in(word, layout)]
        there = bin_of[group, exponent_in(result, layout)]
        are_neighbours = word + np.uint64(1) == result or result + np.uint64(1) == word
        if here != there and not are_neighbours:
            low, high = min(here, there), max(here, there)
            spans[group, low, high] += 1
            for edge in range(low, high):
                crossings[group, edge] += 1.0 / (high - low)


@loop
def _plan_group(
    bins: _Bins, space: _Space, exponent_bits: Integer, group_words: Integer, words: Integer,
    word_bits: Integer, costs: Costs, weights: Weights,
) -> tuple[Integer, Integer, float]:  # fmt: skip
    """Plan one group; return the number of its classes, of the lowest, and its bits with one."""
    _cut(bins, space, word_bits, costs)
    size = bins.totals.shape[0]
    number = np.int64(0)
    cut = np.int64(size)
    while cut > 0:
        number += 1
        cut = space.before[cut]
    cut = np.int64(size)
    for i in range(number - 1, -1, -1):
        space.cuts[i] = cut
        cut = space.before[cut]
    lows = _choose_lows(bins, space, number, words, costs) if exponent_bits else np.int64(0)
    hits = np.int64(0)
    space.histogram[:] = 0
    for own in range(size):
        hits += bins.totals[own, _HITS]
        add_steps(space.histogram, bins.histograms[own])
    table_bits = best_table(space.histogram, word_bits, costs, weights, space.freqs)[3]
    place_bits = mask_bits(hits, group_words)
    return number, lows, place_bits + _HEADER_BITS + exponent_bits + table_bits


@loop
def _cut(bins: _Bins, space: _Space, word_bits: Integer, costs: Costs) -> None:
    """Cut bins into classes by dynamic programming: fill in for each cut the one before it."""
    totals, crossings, best = bins.totals, bins.crossings, space.best
    below = 0.0
    for i in range(totals.shape[0]):
        below += totals[i, _WORDS]
        if crossings[i] > 0:
            space.edge_bits[i] = crossings[i] * (2 + max(1.0, np.log2(below / crossings[i])))
        _, space.symbols[i], totals[i, _RAW] = sum_up(bins.histograms[i])
    best[0] = 0.0
    for last in range(1, totals.shape[0] + 1):
        best[last] = _FAR
        space.histogram[:] = 0
        words, hits, raw = np.int64(0), np.int64(0), np.int64(0)
        most = np.int64(0)
        for first in range(last - 1, -1, -1):
            words += totals[first, _WORDS]
            hits += totals[first, _HITS]
            raw += totals[first, _RAW]
            add_steps(space.histogram, bins.histograms[first])
            most = max(most, space.symbols[first])
            place_bits = mask_bits(hits, words)
            around = space.edge_bits[last - 1]
            if best[first] + _CLASS_BITS + around + place_bits >= best[last]:
                continue
            table_bits = estimated_bits(space.histogram, hits, most, raw, word_bits, costs)
            bits = best[first] + table_bits + _CLASS_BITS + around + place_bits
            if bits < best[last]:
                best[last] = bits
                space.before[last] = first


@loop
def mask_bits(hits: Integer, words: Integer) -> Integer:
    """Entropy of the places of ``hits`` changes among ``words`` words."""
    if hits == 0 or hits >= words:
        return 0.0
    misses = words - hits
    entropy = hits * np.log2(words / hits) + misses * np.log2(words / misses)
    return entropy + np.log2(1.0 + words / hits) + 1


@loop
def _choose_lows(
    bins: _Bins, space: _Space, number: Integer, words: Integer, costs: Costs
) -> Integer:
    """How many of the lowest of ``number`` classes get a population for changes among them."""
    size = bins.totals.shape[0]
    own: Integer = np.int64(0)
    for high in range(size + 1):
        while own < number and space.cuts[own] <= high:
            own += 1
        space.class_of[high] = own
        if high < size:
            space.words_of[own] += bins.totals[high, _WORDS]
        for low in range(high):
            if space.class_of[low] != own:
                space.crossed[own] += bins.spans[low, high]
    outside: Integer = np.int64(0)
    inside, reach = np.int64(0), np.int64(0)
    for own in range(number + 1):
        outside += space.crossed[own]
    best: Integer = np.int64(0)
    best_bits = _FAR
    for lows in range(number + 1):
        if lows:
            inside += space.crossed[lows - 1]
            outside -= space.crossed[lows - 1]
            reach += space.words_of[lows - 1]
            if not inside:
                continue
        bits = 0.0
        if inside:
            bits += best_level(inside, reach, costs)[1] + 30
        if outside:
            bits += best_level(outside, words, costs)[1] + 30
        if bits < best_bits:
            best, best_bits = lows, bits
    return best
