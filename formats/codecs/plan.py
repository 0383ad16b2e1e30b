"""The encoder's first choice: which exponents share a class.

Nothing here binds a decoder; the classes are those with the shortest expected code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.compiled import Integer, compiled, inlined
from patchc.formats.codecs.changes import Changes
from patchc.formats.codecs.classes import Layout, Words, exponent_in
from patchc.formats.codecs.levels import best_level
from patchc.formats.codecs.model import Model, empty_model
from patchc.formats.codecs.step_tokens import SYMBOLS, best_table, estimated_bits

MOST_BINS = 40
_CLASS_BITS = 6.0
_HEADER_BITS = 22.0  # that one class alone takes beside its exponent, and a last byte
_FAR = 1e300


@compiled
def plan_model(
    words: Words, changes: Changes, layout: Layout, held: NDArray[np.int64], word_bits: Integer,
    hit_bits: NDArray[np.float64], miss_bits: NDArray[np.float64], model: Model,
) -> float:  # fmt: skip
    """Choose the classes of each group, and the lowest ones; fills those parts of ``model``.

    Returns:
        About the bits of a body whose groups have one class of all exponents each.
    """
    undivided = 0.0
    for group in range(held.shape[0]):
        first = model.firsts[group]
        count, bits = _plan_group(
            words, changes, layout, group, held[group], word_bits, hit_bits, miss_bits, model
        )
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
def _plan_group(
    words: Words, changes: Changes, layout: Layout, group: Integer, held: NDArray[np.int64],
    word_bits: Integer, hit_bits: NDArray[np.float64], miss_bits: NDArray[np.float64],
    model: Model,
) -> tuple[Integer, float]:  # fmt: skip
    """Plan one group; return its number of classes, and about its bits with one of all words."""
    cells = group * held.size
    tops = np.zeros(held.size, np.int64)
    bins = 0
    for exponent in range(held.size):
        if changes.hits[cells + exponent]:
            tops[bins] = exponent
            bins += 1
    if bins == 0:
        return 0, 3.0
    spare = max(0, bins - MOST_BINS)
    tops = tops[spare:bins]
    bins -= spare
    bin_of = np.full(held.size, bins)
    sizes_held = np.zeros(bins, np.int64)
    counts = np.zeros((bins, 2 * SYMBOLS), np.int64)
    hits, sizes = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
    at_bin = 0
    for exponent in range(tops[bins - 1] + 1):
        if exponent > tops[at_bin]:
            at_bin += 1
        bin_of[exponent] = at_bin
        sizes_held[at_bin] += held[exponent]
        if changes.hits[cells + exponent]:
            row = changes.rows[cells + exponent]
            hits[at_bin] += changes.hits[cells + exponent]
            sizes[at_bin] += changes.sizes[row]
            counts[at_bin] += changes.counts[row]
    crossings = np.zeros(bins)
    spans = np.zeros((bins + 1, bins + 1), np.int64)
    for i in range(changes.crossers.size):
        change = changes.crossers[i]
        if changes.cells[change] // held.size != group:
            continue
        word = np.uint64(words[changes.positions[change]])
        result = word ^ np.uint64(changes.flips[change])
        here = bin_of[exponent_in(word, layout)]
        there = bin_of[exponent_in(result, layout)]
        if here != there and not _swaps(word, result):
            low, high = min(here, there), max(here, there)
            spans[low, high] += 1
            for edge in range(low, high):
                crossings[edge] += 1.0 / (high - low)
    before = _cut(sizes_held, hits, counts, sizes, crossings, word_bits, hit_bits, miss_bits)
    first = model.firsts[group]
    chosen = np.zeros(bins + 1, np.int64)
    number = 0
    at_bin = bins
    while at_bin > 0:
        chosen[number] = at_bin
        number += 1
        at_bin = before[at_bin]
    for i in range(number):
        model.tops[first + i] = tops[chosen[number - 1 - i] - 1]
    if held.size > 1:
        model.lows[group] = _choose_lows(
            chosen, number, sizes_held, spans, words.size, hit_bits, miss_bits
        )
    undivided = mask_bits(hits.sum(), held.sum()) + _HEADER_BITS + layout.exponent_bits + best_table(
        counts.sum(axis=0), sizes.sum(), word_bits, hit_bits, miss_bits, model.weights[0]
    )[3]  # fmt: skip
    return number, undivided


@inlined
def _swaps(word: Integer, result: Integer) -> Integer:
    """Whether two words of different exponents are neighbours."""
    return word + np.uint64(1) == result or result + np.uint64(1) == word


@inlined
def _cut(
    held: NDArray[np.int64], hits: NDArray[np.int64], counts: NDArray[np.int64],
    sizes: NDArray[np.int64], crossings: NDArray[np.float64], word_bits: Integer,
    hit_bits: NDArray[np.float64], miss_bits: NDArray[np.float64],
) -> NDArray[np.int64]:  # fmt: skip
    """Cut bins into classes by dynamic programming; gives for each cut the one before it."""
    bins = held.size
    edge_bits = np.zeros(bins)
    below = 0.0
    for i in range(bins):
        below += held[i]
        if crossings[i] > 0:
            edge_bits[i] = crossings[i] * (2 + max(1.0, np.log2(below / crossings[i])))
    best = np.full(bins + 1, _FAR)
    best[0] = 0.0
    before = np.zeros(bins + 1, np.int64)
    for last in range(1, bins + 1):
        sum_counts = np.zeros(2 * SYMBOLS, np.int64)
        sum_held, sum_hits, sum_sizes = 0, 0, 0
        for first in range(last - 1, -1, -1):
            sum_counts += counts[first]
            sum_held += held[first]
            sum_hits += hits[first]
            sum_sizes += sizes[first]
            table_bits = estimated_bits(sum_counts, sum_sizes, word_bits, hit_bits, miss_bits)
            bits = best[first] + table_bits + _CLASS_BITS + edge_bits[last - 1]
            bits += mask_bits(sum_hits, sum_held)
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
    spans: NDArray[np.int64], words: Integer, hit_bits: NDArray[np.float64],
    miss_bits: NDArray[np.float64],
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
    class_held = np.zeros(number + 1, np.int64)
    for i in range(bins):
        class_held[class_of[i]] += held[i]
    best, best_bits = 0, _FAR
    for lows in range(number + 1):
        inside, outside = 0, 0
        for low in range(bins + 1):
            for high in range(low + 1, bins + 1):
                if class_of[low] != class_of[high]:
                    if class_of[high] < lows:
                        inside += spans[low, high]
                    else:
                        outside += spans[low, high]
        if lows and not inside:
            continue
        bits = 0.0
        if inside:
            bits += best_level(inside, np.sum(class_held[:lows]), hit_bits, miss_bits)[1] + 30
        if outside:
            bits += best_level(outside, words, hit_bits, miss_bits)[1] + 30
        if bits < best_bits:
            best, best_bits = lows, bits
    return best
