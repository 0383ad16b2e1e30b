"""The encoder's first choice: which exponents share a class.

Nothing here binds a decoder; the classes are those with the shortest expected code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.formats.codecs.conditional.encode.change_statistics import Changes
from patchc.formats.codecs.conditional.model.chunk_model import Model, empty_model
from patchc.formats.codecs.conditional.model.classes import Layout, exponent_in
from patchc.formats.codecs.conditional.model.levels import Costs, best_level
from patchc.formats.codecs.conditional.model.step_tables import best_table, estimated_bits, sum_up
from patchc.formats.codecs.conditional.model.step_tokens import SYMBOLS
from patchc.jit import Integer, compiled, inlined

MOST_BINS = 40
_CLASS_BITS = 6.0
_HEADER_BITS = 22.0  # that one class alone takes beside its exponent, and a last byte
_FAR = 1e300


@compiled
def plan_model(
    words: Words, changes: Changes, layout: Layout, held: NDArray[np.int64], word_bits: Integer,
    costs: Costs, model: Model,
) -> float:  # fmt: skip
    """Choose the classes of each group, and the lowest ones; fills those parts of ``model``.

    Returns:
        About the bits of a body whose groups have one class of all exponents each.
    """
    kinds, exponents = held.shape
    numbers = np.zeros(kinds, np.int64)
    tops, bin_of = np.zeros((kinds, exponents), np.int64), np.zeros((kinds, exponents), np.int64)
    for group in range(kinds):
        cells = group * exponents
        numbers[group] = _find_bins(
            changes.hits[cells : cells + exponents], tops[group], bin_of[group]
        )
    crossings, spans = _count_crossings(words, changes, layout, numbers, bin_of)
    undivided = 0.0
    for group in range(kinds):
        first, bins = model.firsts[group], numbers[group]
        count, bits = 0, 3.0
        if bins:
            count, bits = _plan_group(
                changes, layout, group, held[group], tops[group, :bins], bin_of[group],
                crossings[group, :bins], spans[group], words.size, word_bits, costs, model,
            )  # fmt: skip
        model.firsts[group + 1] = first + count + 1
        undivided += bits
    return undivided


def undivided_model(changes: Changes, layout: Layout, kinds: int) -> Model:
    """A model in which all words of a group with changes are one class, which none can leave."""
    model = empty_model()
    changed = changes.hits.reshape(kinds, -1).any(axis=1)
    model.firsts[1 : kinds + 1] = np.cumsum(1 + changed)
    model.tops[model.firsts[:kinds]] = layout.exponent_mask
    return model


@inlined
def _find_bins(
    hits: NDArray[np.int64], tops: NDArray[np.int64], bin_of: NDArray[np.int64]
) -> Integer:
    """Give each exponent with changes a bin, but the lowest of very many one together.

    Args:
        hits: changes by exponent.
        tops: filled, the greatest exponent of each bin.
        bin_of: filled, the bin of each exponent; one after the last where none is as great.

    Returns:
        The number of bins.
    """
    bins: Integer = np.int64(0)
    for exponent in range(hits.size):
        if hits[exponent]:
            tops[bins] = exponent
            bins += 1
    spare = max(0, bins - MOST_BINS)
    bins -= spare
    for number in range(bins):
        tops[number] = tops[number + spare]
    number = 0
    for exponent in range(hits.size):
        while number < bins and exponent > tops[number]:
            number += 1
        bin_of[exponent] = number
    return bins


@inlined
def _count_crossings(
    words: Words, changes: Changes, layout: Layout, numbers: NDArray[np.int64],
    bin_of: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # fmt: skip
    """Of each group, the shares of changes that cross each bin's upper edge, and the changes by
    the lower and the higher of the two bins that they lie between; but none between neighbours."""
    most = numbers.max() + 1
    crossings = np.zeros((numbers.size, most))
    spans = np.zeros((numbers.size, most, most), np.int64)
    for i in range(changes.crossers.size):
        change = changes.crossers[i]
        group = np.int64(np.uint64(changes.cells[change]) >> layout.exponent_bits)
        word = np.uint64(words[changes.positions[change]])
        result = word ^ np.uint64(changes.flips[change])
        here = bin_of[group, exponent_in(word, layout)]
        there = bin_of[group, exponent_in(result, layout)]
        if here != there and not _swaps(word, result):
            low, high = min(here, there), max(here, there)
            spans[group, low, high] += 1
            for edge in range(low, high):
                crossings[group, edge] += 1.0 / (high - low)
    return crossings, spans


@inlined
def _plan_group(
    changes: Changes, layout: Layout, group: Integer, held: NDArray[np.int64],
    tops: NDArray[np.int64], bin_of: NDArray[np.int64], crossings: NDArray[np.float64],
    spans: NDArray[np.int64], words: Integer, word_bits: Integer, costs: Costs, model: Model,
) -> tuple[Integer, float]:  # fmt: skip
    """Plan one group; return its number of classes, and about its bits with one of all words."""
    bins = tops.size
    held_in, hits = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
    sizes, counts = np.zeros(bins, np.int64), np.zeros((bins, 2 * SYMBOLS), np.int64)
    for exponent in range(tops[bins - 1] + 1):
        own, cell = bin_of[exponent], group * held.size + exponent
        held_in[own] += held[exponent]
        if changes.hits[cell]:
            hits[own] += changes.hits[cell]
            sizes[own] += changes.sizes[changes.rows[cell]]
            counts[own] += changes.counts[changes.rows[cell]]
    before = _cut(held_in, hits, counts, sizes, crossings, word_bits, costs)
    chosen = np.zeros(bins + 1, np.int64)
    number = 0
    cut = bins
    while cut > 0:
        chosen[number] = cut
        number += 1
        cut = before[cut]
    for i in range(number):
        model.tops[model.firsts[group] + i] = tops[chosen[number - 1 - i] - 1]
    if held.size > 1:
        model.lows[group] = _choose_lows(chosen, number, held_in, spans, words, costs)
    table_bits = best_table(
        counts.sum(axis=0), sizes.sum(), word_bits, costs, model.weights[0]
    )[3]  # fmt: skip
    places_bits = mask_bits(hits.sum(), held.sum())
    return number, places_bits + _HEADER_BITS + layout.exponent_bits + table_bits


@inlined
def _swaps(word: Integer, result: Integer) -> Integer:
    """Whether two words of different exponents are neighbours."""
    return word + np.uint64(1) == result or result + np.uint64(1) == word


@inlined
def _cut(
    held: NDArray[np.int64], hits: NDArray[np.int64], counts: NDArray[np.int64],
    sizes: NDArray[np.int64], crossings: NDArray[np.float64], word_bits: Integer,
    costs: Costs,
) -> NDArray[np.int64]:  # fmt: skip
    """Cut bins into classes by dynamic programming; gives for each cut the one before it."""
    bins = held.size
    edge_bits = np.zeros(bins)
    below = 0.0
    for i in range(bins):
        below += held[i]
        if crossings[i] > 0:
            edge_bits[i] = crossings[i] * (2 + max(1.0, np.log2(below / crossings[i])))
    raw, ends = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
    for i in range(bins):
        _, ends[i], raw[i] = sum_up(counts[i])
    best = np.full(bins + 1, _FAR)
    best[0] = 0.0
    before = np.zeros(bins + 1, np.int64)
    for last in range(1, bins + 1):
        sum_counts = np.zeros(2 * SYMBOLS, np.int64)
        sum_held, sum_hits, sum_sizes, sum_raw, symbols = 0, 0, 0, 0, 0
        for first in range(last - 1, -1, -1):
            sum_counts += counts[first]
            sum_held += held[first]
            sum_hits += hits[first]
            sum_sizes += sizes[first]
            sum_raw += raw[first]
            symbols = max(symbols, ends[first])
            place_bits = mask_bits(sum_hits, sum_held)
            if best[first] + _CLASS_BITS + edge_bits[last - 1] + place_bits >= best[last]:
                continue
            table_bits = estimated_bits(
                sum_counts, sum_hits, symbols, sum_raw, sum_sizes, word_bits, costs
            )
            bits = best[first] + table_bits + _CLASS_BITS + edge_bits[last - 1] + place_bits
            if bits < best[last]:
                best[last] = bits
                before[last] = first
    return before


@inlined
def mask_bits(hits: Integer, held: Integer) -> Integer:
    """Entropy of the places of ``hits`` changes among ``held`` words."""
    if hits == 0 or hits >= held:
        return 0.0
    misses = held - hits
    return (
        hits * np.log2(held / hits)
        + misses * np.log2(held / misses)
        + np.log2(1.0 + held / hits)
        + 1
    )


@inlined
def _choose_lows(
    chosen: NDArray[np.int64], number: Integer, held: NDArray[np.int64],
    spans: NDArray[np.int64], words: Integer, costs: Costs,
) -> Integer:  # fmt: skip
    """How many of the lowest classes get a population of their own for changes among them.

    ``chosen`` holds the cuts, last first.
    """
    bins = held.size
    class_of = np.full(bins + 1, number)
    start = 0
    for i in range(number):
        class_of[start : chosen[number - 1 - i]] = i
        start = chosen[number - 1 - i]
    class_held, crossed = np.zeros(number + 1, np.int64), np.zeros(number + 1, np.int64)
    for high in range(bins + 1):
        if high < bins:
            class_held[class_of[high]] += held[high]
        for low in range(high):
            if class_of[low] != class_of[high]:
                crossed[class_of[high]] += spans[low, high]
    best, best_bits = 0, _FAR
    for lows in range(number + 1):
        inside = crossed[:lows].sum()
        outside = crossed[lows:].sum()
        if lows and not inside:
            continue
        bits = 0.0
        if inside:
            bits += best_level(inside, class_held[:lows].sum(), costs)[1] + 30
        if outside:
            bits += best_level(outside, words, costs)[1] + 30
        if bits < best_bits:
            best, best_bits = lows, bits
    return best
