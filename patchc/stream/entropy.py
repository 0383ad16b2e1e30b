"""The conditional entropy of a model's changes: the bound that a patch file is measured against.

Receiver and sender share the base. Given each tensor and each word's exponent in the base, it takes
Σ nₑ H₂(kₑ / nₑ) bits to say which kₑ of nₑ words of an exponent change, and
Σ kₑ H(steps of exponent e) to say by how many steps. Words without an exponent are of one class;
where a selection has seeded retention masks, those of each combination of masks count apart.
Lower bits of large steps are counted as they are (:mod:`patchc.kernels.histograms`).
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import DType
from patchc.formats.bits import ChangeBits
from patchc.formats.codecs.classes import MOST_GROUPS, Groups, exponent_of
from patchc.kernels.histograms import (
    count_exponents,
    count_in_groups,
    count_steps,
    raw_bits,
    symbols,
)

Words = NDArray[np.unsignedinteger]


class TensorCounts:
    """Counts of one tensor, to which worker threads add its chunks in any order."""

    def __init__(self, dtype: DType) -> None:
        self._shift, self._bits = exponent_of(dtype)
        self._word_bits = dtype.word_bits
        self._words = np.zeros((MOST_GROUPS, 1 << self._bits), np.int64)
        self._steps: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._lock = threading.Lock()

    def add(
        self,
        words: Words,
        positions: NDArray[np.uint32],
        steps: NDArray[np.int64],
        groups: Groups | None = None,
    ) -> None:
        """Count a chunk: its words in the base, its changes, if any, and groups to count apart."""
        counts = np.zeros_like(self._words)
        if groups is None:
            counts[0] = count_exponents(words, self._shift, self._bits)
            self._add_steps(0, words[positions], steps)
        else:
            count_in_groups(words, groups, self._shift, self._bits, counts)
            of_changed = groups[positions]
            for group in range(MOST_GROUPS):
                own = of_changed == group
                self._add_steps(group, words[positions[own]], steps[own])
        with self._lock:
            self._words += counts

    def _add_steps(self, group: int, changed: Words, steps: NDArray[np.int64]) -> None:
        counts = np.zeros((1 << self._bits, symbols(self._word_bits)), np.uint32)
        count_steps(changed, steps, self._shift, self._bits, counts)
        with self._lock:
            for exponent in np.flatnonzero(counts.any(axis=1)).tolist():
                key = group, exponent
                self._steps[key] = self._steps.get(key, 0) + counts[exponent].astype(int)

    def entropy(self) -> ChangeBits:
        """Of the chunks that were added."""
        if not self._steps:
            return ChangeBits()
        groups, exponents = zip(*self._steps, strict=True)
        words = self._words[list(groups), list(exponents)]
        steps = np.stack(list(self._steps.values()))
        changed = steps.sum(axis=1)
        positions = _xlogx(words) - _xlogx(changed) - _xlogx(words - changed)
        values = (
            _xlogx(changed) - _xlogx(steps) + int(steps.sum(axis=0) @ raw_bits(self._word_bits))
        )
        return ChangeBits(positions, values)


def _xlogx(counts: NDArray[np.int64]) -> float:
    """Sum of x log₂ x, in bits."""
    positive = counts[counts > 0].astype(np.float64)
    return float(positive @ np.log2(positive))
