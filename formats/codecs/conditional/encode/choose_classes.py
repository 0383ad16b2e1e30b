"""The encoder's first choice: which exponents share a class.

The classes are those with the shortest expected code; any others would decode as well.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.formats.codecs.conditional.encode.change_statistics import Changes
from patchc.formats.codecs.conditional.encode.choose_tables import (
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
from patchc.formats.codecs.conditional.model.step_tokens import HISTOGRAM
from patchc.jit import Integer, allocating_loop, loop
from patchc.kernels.histograms import Counts

MOST_BINS = 40
_CLASS_BITS = 6.0
_HEADER_BITS = 22.0  # of one class alone without its exponent, and a last byte
_FAR = 1e300
_WORDS, _HITS, _RAW = 0, 1, 2  # totals of a bin; the last is the raw bits of its steps


@allocating_loop
def plan_model(
    words: Words, changes: Changes, layout: Layout, word_counts: Counts, word_bits: Integer,
    costs: Costs, model: Model,
) -> float:  # fmt: skip
    """Choose the classes of each group, and the lowest ones; fills those fields of ``model``.

    Returns:
        About the bits of a body whose groups have one class of all exponents each.
    """
    group_count, exponents = word_counts.shape
    hits = changes.hits.reshape(word_counts.shape)
    bin_of = np.empty(word_counts.shape, np.int64)
    most = 0
    for group in range(group_count):
        tops = _bin_tops(hits[group])
        bin_of[group] = np.searchsorted(tops, np.arange(exponents))
        most = max(most, tops.size)
    crossings, spans = _count_crossings(words, changes, layout, most + 1, bin_of)
    undivided = 0.0
    for group in range(group_count):
        count, bits = 0, 3.0
        if hits[group].any():
            count, bits = _plan_group(
                changes, layout, group, word_counts[group], bin_of[group], crossings[group],
                spans[group], words.size, word_bits, costs, model,
            )  # fmt: skip
        model.firsts[group + 1] = model.firsts[group] + count + 1
        undivided += bits
    return undivided


def undivided_model(changes: Changes, layout: Layout) -> Model:
    """A model in which each group with changes has one class of all words, which none leaves."""
    model = empty_model()
    changed = changes.hits.reshape(layout.group_count, -1).any(axis=1)
    model.firsts[1 : layout.group_count + 1] = np.cumsum(1 + changed)
    model.tops[model.firsts[: layout.group_count]] = layout.exponent_mask
    return model


@allocating_loop
def _bin_tops(hits: NDArray[np.int64]) -> NDArray[np.int64]:
    """The greatest exponent of each bin: all with changes, or the greatest of too many.

    Exponents up to a top, and above the one before it, share its bin.
    """
    return np.flatnonzero(hits)[-MOST_BINS:]


@allocating_loop
def _count_crossings(
    words: Words, changes: Changes, layout: Layout, most: Integer,
    bin_of: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # fmt: skip
    """Count the changes from bin to bin in each group, without steps between neighbouring words.

    Returns:
        By group and bin, the shares of changes that cross the bin's upper edge; by group, lower and
        higher bin, the changes between the two.
    """
    crossings = np.zeros((bin_of.shape[0], most))
    spans = np.zeros((bin_of.shape[0], most, most), np.int64)
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
    return crossings, spans


@allocating_loop
def _plan_group(
    changes: Changes, layout: Layout, group: Integer, word_counts: NDArray[np.int64],
    bin_of: NDArray[np.int64], crossings: NDArray[np.float64], spans: NDArray[np.int64],
    words: Integer, word_bits: Integer, costs: Costs, model: Model,
) -> tuple[Integer, float]:  # fmt: skip
    """Plan one group; return its number of classes, and about its bits with one class."""
    cells = group * word_counts.size
    tops = _bin_tops(changes.hits[cells : cells + word_counts.size])
    bins = tops.size
    totals, histograms = np.zeros((bins, 3), np.int64), np.zeros((bins, HISTOGRAM), np.int64)
    for exponent in range(tops[bins - 1] + 1):
        own, cell = bin_of[exponent], cells + exponent
        totals[own, _WORDS] += word_counts[exponent]
        if changes.hits[cell]:
            totals[own, _HITS] += changes.hits[cell]
            histograms[own] += changes.histograms[changes.rows[cell]]
    before = _cut(totals, histograms, crossings, word_bits, costs)
    chosen = np.zeros(bins + 1, np.int64)
    number = 0
    cut = bins
    while cut > 0:
        chosen[number] = cut
        number += 1
        cut = before[cut]
    for i in range(number):
        model.tops[model.firsts[group] + i] = tops[chosen[number - 1 - i] - 1]
    if word_counts.size > 1:
        model.lows[group] = _choose_lows(chosen, number, totals[:, _WORDS], spans, words, costs)
    sums, weights = totals.sum(axis=0), model.weights[0]
    table_bits = best_table(histograms.sum(axis=0), word_bits, costs, weights)[3]
    place_bits = mask_bits(sums[_HITS], word_counts.sum())
    return number, place_bits + _HEADER_BITS + layout.exponent_bits + table_bits


@allocating_loop
def _cut(
    totals: NDArray[np.int64], histograms: NDArray[np.int64], crossings: NDArray[np.float64],
    word_bits: Integer, costs: Costs,
) -> NDArray[np.int64]:  # fmt: skip
    """Cut bins into classes by dynamic programming; return for each cut the one before it."""
    bins = totals.shape[0]
    edge_bits, symbols = np.zeros(bins), np.zeros(bins, np.int64)
    below = 0.0
    for i in range(bins):
        below += totals[i, _WORDS]
        if crossings[i] > 0:
            edge_bits[i] = crossings[i] * (2 + max(1.0, np.log2(below / crossings[i])))
        _, symbols[i], totals[i, _RAW] = sum_up(histograms[i])
    best = np.full(bins + 1, _FAR)
    best[0] = 0.0
    before = np.zeros(bins + 1, np.int64)
    for last in range(1, bins + 1):
        of_class, histogram = np.zeros(3, np.int64), np.zeros(HISTOGRAM, np.int64)
        most = 0
        for first in range(last - 1, -1, -1):
            of_class += totals[first]
            histogram += histograms[first]
            most = max(most, symbols[first])
            hits = of_class[_HITS]
            place_bits = mask_bits(hits, of_class[_WORDS])
            if best[first] + _CLASS_BITS + edge_bits[last - 1] + place_bits >= best[last]:
                continue
            table_bits = estimated_bits(histogram, hits, most, of_class[_RAW], word_bits, costs)
            bits = best[first] + table_bits + _CLASS_BITS + edge_bits[last - 1] + place_bits
            if bits < best[last]:
                best[last] = bits
                before[last] = first
    return before


@loop
def mask_bits(hits: Integer, words: Integer) -> Integer:
    """Entropy of the places of ``hits`` changes among ``words`` words."""
    if hits == 0 or hits >= words:
        return 0.0
    misses = words - hits
    entropy = hits * np.log2(words / hits) + misses * np.log2(words / misses)
    return entropy + np.log2(1.0 + words / hits) + 1


@allocating_loop
def _choose_lows(
    chosen: NDArray[np.int64], number: Integer, words_in: NDArray[np.int64],
    spans: NDArray[np.int64], words: Integer, costs: Costs,
) -> Integer:  # fmt: skip
    """How many of the lowest classes get a population of their own for changes among them.

    ``chosen`` has the cuts, last first.
    """
    bins = words_in.size
    class_of = np.searchsorted(chosen[:number][::-1].copy(), np.arange(bins + 1), "right")
    words_of, crossed = np.zeros(number + 1, np.int64), np.zeros(number + 1, np.int64)
    for high in range(bins + 1):
        if high < bins:
            words_of[class_of[high]] += words_in[high]
        for low in range(high):
            if class_of[low] != class_of[high]:
                crossed[class_of[high]] += spans[low, high]
    best, best_bits = 0, _FAR
    for lows in range(number + 1):
        inside, outside = crossed[:lows].sum(), crossed[lows:].sum()
        if lows and not inside:
            continue
        bits = 0.0
        if inside:
            bits += best_level(inside, words_of[:lows].sum(), costs)[1] + 30
        if outside:
            bits += best_level(outside, words, costs)[1] + 30
        if bits < best_bits:
            best, best_bits = lows, bits
    return best
