"""Exact top-k in one pass over the scores, where a bracket around the cut is known beforehand.

Of the retained entries, those with keys of at least ``upper`` are in the top set and those below
``lower`` are not; only those in between are listed, and settled once all chunks are counted.
A bracket comes from a sample. It decides how much is listed, never what is selected: the counts
tell whether the cut lies inside, and if not, histograms find it (:mod:`patchc.kernels.topk.cpu`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchc.jit import Integer, compiled, kernel
from patchc.kernels.bitmask import Bitmask, words_for
from patchc.kernels.philox.cpu import Retention
from patchc.kernels.topk.cpu import (
    LARGEST_FINITE,
    MAGNITUDE,
    NEGATIVE_ZERO,
    NEVER_KEPT,
    Bits,
    draw_arguments,
    fill,
)
from patchc.simd import below, lowest, popcount

_TILE = 4096
_ABOVE_ALL = 1 << 31
_DEVIATIONS = 3
_SLACK = 8


@dataclass(frozen=True)
class Bracket:
    """Keys from ``lower`` to below ``upper``; 2³¹ is above every key."""

    lower: int = 0
    upper: int = _ABOVE_ALL


@dataclass(frozen=True)
class Collected:
    """What a bracket leaves of a chunk.

    Attributes:
        fault: whether a score is negative or not finite; then nothing else holds.
        ranked: how many entries are retained.
        sure: how many of them are above the bracket.
        positions, keys: those inside it, in order; None where they were more than room was for, and
            then nothing else holds.
    """

    fault: bool
    ranked: int
    sure: int
    positions: NDArray[np.uint32] | None
    keys: Bits | None


def sample_keys(
    runs: Bits, firsts: NDArray[np.int64], retention: Retention
) -> tuple[Bits, NDArray[np.int64]]:
    """The keys of the retained entries in runs of scores, and how many are each run's.

    Args:
        runs: shape (runs, entries): fp32 scores as uint32.
        firsts: flat index of each run's first score; multiples of 4.
        retention: which entries may be taken.
    """
    keys, counts = np.empty(runs.size, np.uint32), np.empty(len(runs), np.int64)
    return keys[: _sample(runs, firsts, *draw_arguments(retention), keys, counts)], counts


def find_bracket(keys: Bits, counts: NDArray[np.int64], rank: float) -> Bracket:
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


def collect(
    bits: Bits, first: int, retention: Retention, bracket: Bracket, room: int, marks: Bitmask | None
) -> Collected:
    """Mark the retained entries above a bracket, and list those inside it.

    Args:
        bits: fp32 scores of flat indices ``first`` on, as uint32.
        first: flat index of the first score in its tensor; a multiple of 4.
        retention: which entries may be taken.
        bracket: the keys in doubt.
        room: most entries to list.
        marks: one bit an entry (:mod:`patchc.kernels.bitmask`), all overwritten; None for none.
    """
    words = np.empty(words_for(bits.size), np.uint32) if marks is None else marks
    positions, keys = np.empty((2, room + _TILE + 1), np.uint32)
    cuts = (np.uint32(bracket.lower), np.uint32(bracket.upper))
    fault, ranked, sure, listed = _collect(
        bits, first, *draw_arguments(retention), *cuts, words, positions, keys, *_new_tiles()
    )
    if listed > room:
        return Collected(fault, ranked, sure, None, None)
    return Collected(fault, ranked, sure, positions[:listed].copy(), keys[:listed].copy())


def join(parts: Sequence[tuple[int, Collected]]) -> Collected:
    """What a bracket leaves of a chunk, from the place of each of its pieces and what it leaves."""
    ranked, sure = sum(one.ranked for _, one in parts), sum(one.sure for _, one in parts)
    keys = [one.keys for _, one in parts if one.keys is not None]
    positions = [at + one.positions for at, one in parts if one.positions is not None]
    if len(keys) < len(parts):
        return Collected(False, ranked, sure, None, None)
    return Collected(False, ranked, sure, np.concatenate(positions), np.concatenate(keys))


@compiled
def mark_listed(
    marks: Bitmask, positions: NDArray[np.uint32], keys: Bits, cut: np.uint32, ties: int
) -> None:
    """Mark the listed entries with keys above ``cut``, and the first ``ties`` equal to it."""
    for i in range(positions.size):
        equal = keys[i] == cut
        if keys[i] > cut or (equal and ties > 0):
            marks[positions[i] >> np.uint32(5)] |= np.uint32(1) << (positions[i] & np.uint32(31))
            ties -= equal


def keep_retained(marks: Bitmask, entries: int, first: int, retention: Retention) -> None:
    """Clear the marks of entries that are not retained.

    Args:
        marks: one bit an entry.
        entries: how many.
        first: flat index of the first one; a multiple of 4.
        retention: which entries may stay.
    """
    _keep_retained(marks, entries, first, *draw_arguments(retention), _new_tiles()[0])


def mark_retained(marks: Bitmask, entries: int, first: int, retention: Retention) -> None:
    """Mark the entries that are retained; as :func:`keep_retained`."""
    marks[:] = ~np.uint32(0)
    if entries & 31:
        marks[-1] >>= np.uint32(-entries & 31)
    keep_retained(marks, entries, first, retention)


def _new_tiles() -> Bits:
    """Two tiles to compute in."""
    return np.empty((2, _TILE), np.uint32)


@compiled
def _sample(
    runs: Bits,
    firsts: NDArray[np.int64],
    seed: np.uint64,
    stream: np.uint64,
    threshold: np.uint64,
    keys: Bits,
    counts: NDArray[np.int64],
) -> int:
    draws = np.empty((runs.shape[1] + 3) // 4 * 4, np.uint32)
    kept = 0
    for run in range(runs.shape[0]):
        before = kept
        limit = fill(seed, stream, threshold, firsts[run], draws)
        for i in range(runs.shape[1]):
            if draws[i] < limit:
                keys[kept] = runs[run, i] & MAGNITUDE
                kept += 1
        counts[run] = kept - before
    return kept


@kernel
def _keep_retained(
    marks: Bitmask,
    entries: int,
    first: int,
    seed: np.uint64,
    stream: np.uint64,
    threshold: np.uint64,
    draws: Bits,
) -> None:
    for start in range(0, entries, _TILE):
        limit = fill(seed, stream, threshold, first + start, draws)
        for at in range(0, min(_TILE, entries - start), 32):
            marks[(start + at) >> 5] &= below(draws, np.uint64(at), limit)


@kernel
def _collect(
    bits: Bits,
    first: int,
    seed: np.uint64,
    stream: np.uint64,
    threshold: np.uint64,
    lower: np.uint32,
    upper: np.uint32,
    marks: Bitmask,
    positions: NDArray[np.uint32],
    keys: Bits,
    draws: Bits,
    tile: Bits,
) -> tuple[bool, Integer, Integer, Integer]:
    ranked, sure, listed = np.uint64(0), np.uint64(0), 0
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
        limit = fill(seed, stream, threshold, first + start, draws)
        draws[count:] = NEVER_KEPT
        for at in range(0, count, 64):
            doubt = np.uint64(0)
            for half in range(0, 64, 32):
                place = np.uint64(at + half)
                kept = below(draws, place, limit)
                above = kept & ~below(tile, place, upper)
                within = kept & ~below(tile, place, lower) & ~above
                if at + half < count:
                    marks[(start + at + half) >> 5] = above
                ranked += popcount(np.uint64(kept))
                sure += popcount(np.uint64(above))
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
    return False, np.int64(ranked), np.int64(sure), listed
