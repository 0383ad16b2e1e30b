"""Computes the conditional entropy of a model's changes, a lower bound for the size of its patch.

Receiver and sender share the base. For each tensor and each exponent e of its words in the base,
Σ nₑ H₂(kₑ / nₑ) bits say which kₑ of the nₑ words change, and Σ kₑ H(steps of exponent e) bits say
by how many steps. Words without an exponent form one class. Under seeded retention masks, each
combination of masks is counted apart. Lower bits of large steps are counted as raw bits
(:mod:`patchc.kernels.histograms`).
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import DType, Words
from patchc.formats.change_bits import ChangeBits
from patchc.formats.codecs.conditional.model.chunk_model import MOST_GROUPS, exponent_of
from patchc.formats.codecs.protocol import Groups
from patchc.kernels.histograms import Counts, count_steps, raw_bits


class TensorCounts:
    """The counts of one tensor; worker threads add its chunks in any order."""

    def __init__(self, dtype: DType) -> None:
        self._shift, self._bits = exponent_of(dtype)
        self._word_bits = dtype.word_bits
        self._words = np.zeros(MOST_GROUPS << self._bits, np.int64)
        self._steps: dict[int, Counts] = {}
        self._lock = threading.Lock()

    def add(
        self,
        word_counts: Counts,
        words: Words,
        positions: NDArray[np.uint32],
        steps: NDArray[np.int64],
        groups: Groups | None = None,
    ) -> None:
        """Count a chunk.

        Args:
            word_counts: words by group and exponent, as ``count_words`` counts them.
            words: the base's words.
            positions, steps: the changes, if any.
            groups: the group of each word; groups are counted apart.
        """
        cells, counts = count_steps(words, positions, steps, self._shift, self._bits, groups)
        with self._lock:
            self._words[: word_counts.size] += word_counts.ravel()
            for cell, own in zip(cells.tolist(), counts, strict=True):
                self._steps[cell] = self._steps.get(cell, 0) + own

    def entropy(self) -> ChangeBits:
        """The entropy of the chunks that were added."""
        if not self._steps:
            return ChangeBits()
        cells = sorted(
            self._steps
        )  # threads add them in any order, and sums of floats depend on it
        words = self._words[cells]
        steps = np.stack([self._steps[cell] for cell in cells])
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
