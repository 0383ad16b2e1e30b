"""Exact top-k in one pass over the scores, after a sample has shown roughly where the cut lies.

The sample gives a *bracket*: an interval of keys around the cut. Retained entries with keys above
it are in the top set, those below it are not; only those inside are listed, and settled once all
chunks are counted. The bracket decides how much is listed, never what is selected: the counts tell
whether the cut lies inside, and if not, histograms find it (:mod:`patchc.kernels.topk.cpu`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchc.jit import Integer, allocating_loop, loop
from patchc.kernels.bitmask import Bitmask, words_for
from patchc.kernels.philox import Retention
from patchc.kernels.philox.cpu import NEVER_RETAINED, draw_tile
from patchc.kernels.topk.cpu import LARGEST_FINITE, MAGNITUDE, NEGATIVE_ZERO, Bits, Counts
from patchc.simd import below, lowest, popcount

_TILE = 4096
_ABOVE_ALL = 1 << 31
_DEVIATIONS = 3
_SLACK = 8

Positions = NDArray[np.uint32]


@dataclass(frozen=True)
class Bracket:
    """Keys from ``lower`` to below ``upper``; 2³¹ is above every key."""

    lower: int = 0
    upper: int = _ABOVE_ALL


@dataclass(frozen=True)
class ChunkCut:
    """A chunk, or a piece of one, cut by a bracket.

    Attributes:
        fault: whether a score is negative or not finite; then nothing else holds.
        ranked: how many entries are retained.
        above: how many of them are above the bracket.
        positions, keys: those inside it, in order; None where they were more than room was for, and
            then nothing else holds.
    """

    fault: bool
    ranked: int
    above: int
    positions: Positions | None
    keys: Bits | None


@allocating_loop
def sample_keys(runs: Bits, firsts: Counts, retention: Retention) -> tuple[Bits, Counts]:
    """The keys of the retained entries in runs of scores, and how many are each run's.

    Args:
        runs: shape (runs, entries): fp32 scores as uint32.
        firsts: flat index of each run's first score; multiples of 4.
        retention: which entries may be taken.
    """
    keys, counts = np.empty(runs.size, np.uint32), np.empty(runs.shape[0], np.int64)
    draws = np.empty((runs.shape[1] + 3) // 4 * 4, np.uint32)
    taken = 0
    for run in range(runs.shape[0]):
        before = taken
        limit = draw_tile(retention, firsts[run], draws)
        for i in range(runs.shape[1]):
            if draws[i] < limit:
                keys[taken] = runs[run, i] & MAGNITUDE
                taken += 1
        counts[run] = taken - before
    return keys[:taken], counts


def find_bracket(keys: Bits, counts: Counts, rank: float) -> Bracket:
    """A bracket that holds the key of a rank of the whole with overwhelming probability.

    Args:
        keys: those of the retained entries in a sample of runs, one run after another.
        counts: how many of them are each run's; scores nearby are alike, so runs, and not entries,
            are what is drawn independently.
        rank: the rank, 1 being the largest key, scaled to the sample.
    """
    if not keys.size:
        return Bracket()
    ordered = np.sort(keys)[::-1]
    cut = ordered[min(max(int(rank), 0), ordered.size - 1)]
    above = np.concatenate(([0], np.cumsum(keys > cut)))
    per_run = np.diff(above[np.concatenate(([0], np.cumsum(counts)))])
    margin = _DEVIATIONS * float(np.std(per_run)) * math.sqrt(counts.size) + _SLACK
    before, after = math.floor(rank - margin), math.ceil(rank + margin)
    upper = int(ordered[min(before, ordered.size - 1)]) if before >= 0 else _ABOVE_ALL
    lower = int(ordered[after]) if after < ordered.size else 0
    return Bracket(lower, max(upper, lower + 1))


def cut_chunk(
    bits: Bits, first: int, retention: Retention, bracket: Bracket, room: int, mask: Bitmask | None
) -> ChunkCut:
    """Mark the retained entries above a bracket, and list those inside it.

    Args:
        bits: fp32 scores of flat indices ``first`` on, as uint32.
        first: flat index of the first score in its tensor; a multiple of 4.
        retention: which entries may be taken.
        bracket: the keys in doubt.
        room: most entries to list.
        mask: one bit an entry, all overwritten; None where none are to be marked.
    """
    if mask is None:
        mask = np.empty(words_for(bits.size), np.uint32)
    positions, keys = np.empty((2, room + _TILE + 1), np.uint32)
    tiles = np.empty((2, _TILE), np.uint32)
    cuts = (np.uint32(bracket.lower), np.uint32(bracket.upper))
    fault, ranked, above, listed = _cut(
        bits, first, retention, *cuts, mask, positions, keys, *tiles
    )
    if listed > room:
        return ChunkCut(fault, ranked, above, None, None)
    return ChunkCut(fault, ranked, above, positions[:listed].copy(), keys[:listed].copy())


def join(pieces: Sequence[tuple[int, ChunkCut]]) -> ChunkCut:
    """A chunk cut by a bracket, from the starts of its pieces and the pieces cut by it."""
    ranked, above = sum(one.ranked for _, one in pieces), sum(one.above for _, one in pieces)
    keys = [one.keys for _, one in pieces if one.keys is not None]
    positions = [start + one.positions for start, one in pieces if one.positions is not None]
    if len(keys) < len(pieces):
        return ChunkCut(False, ranked, above, None, None)
    return ChunkCut(False, ranked, above, np.concatenate(positions), np.concatenate(keys))


@loop
def mark_listed(mask: Bitmask, positions: Positions, keys: Bits, cut: np.uint32, ties: int) -> None:
    """Mark the listed entries with keys above ``cut``, and the first ``ties`` equal to it."""
    for i in range(positions.size):
        equal = keys[i] == cut
        if keys[i] > cut or (equal and ties > 0):
            mask[positions[i] >> np.uint32(5)] |= np.uint32(1) << (positions[i] & np.uint32(31))
            ties -= equal


def mark_retained(mask: Bitmask, entries: int, first: int, retention: Retention) -> None:
    """Mark the entries that are retained; as :func:`keep_retained`."""
    mask[:] = ~np.uint32(0)
    if entries & 31:
        mask[-1] >>= np.uint32(-entries & 31)
    keep_retained(mask, entries, first, retention)


@allocating_loop
def keep_retained(mask: Bitmask, entries: int, first: int, retention: Retention) -> None:
    """Clear the entries of a bitmask that are not retained.

    Args:
        mask: one bit an entry.
        entries: how many.
        first: flat index of the first one; a multiple of 4.
        retention: which entries may stay.
    """
    draws = np.empty(_TILE, np.uint32)
    for start in range(0, entries, _TILE):
        limit = draw_tile(retention, first + start, draws)
        for at in range(0, min(_TILE, entries - start), 32):
            mask[(start + at) >> 5] &= below(draws, np.uint64(at), limit)


@loop
def _cut(
    bits: Bits,
    first: int,
    retention: Retention,
    lower: np.uint32,
    upper: np.uint32,
    mask: Bitmask,
    positions: Positions,
    keys: Bits,
    draws: Bits,
    tile: Bits,
) -> tuple[bool, Integer, Integer, Integer]:
    ranked, in_top, listed = np.uint64(0), np.uint64(0), 0
    for start in range(0, bits.size, _TILE):
        if listed + _TILE >= positions.size:
            break
        scores = bits[start : start + _TILE]
        count, before = scores.size, listed
        largest = np.uint32(0)
        for i in range(count):
            largest = max(largest, scores[i] if scores[i] != NEGATIVE_ZERO else np.uint32(0))
            tile[i] = scores[i] & MAGNITUDE
        if largest > LARGEST_FINITE:
            return True, np.int64(0), np.int64(0), 0
        limit = draw_tile(retention, first + start, draws)
        draws[count:] = NEVER_RETAINED
        for at in range(0, count, 64):
            doubt = np.uint64(0)
            for half in range(0, 64, 32):
                place = np.uint64(at + half)
                drawn = below(draws, place, limit)
                above = drawn & ~below(tile, place, upper)
                within = drawn & ~below(tile, place, lower) & ~above
                if at + half < count:
                    mask[(start + at + half) >> 5] = above
                ranked += popcount(np.uint64(drawn))
                in_top += popcount(np.uint64(above))
                doubt |= np.uint64(within) << np.uint64(half)
            # Often there is one at most, and then no branch has to be guessed.
            positions[listed] = start + at + np.int64(lowest(doubt))
            listed += doubt != np.uint64(0)
            doubt &= doubt - np.uint64(1)
            while doubt:
                positions[listed] = start + at + np.int64(lowest(doubt))
                listed += 1
                doubt &= doubt - np.uint64(1)
        for i in range(before, listed):
            keys[i] = bits[positions[i]] & MAGNITUDE
    return False, np.int64(ranked), np.int64(in_top), listed
