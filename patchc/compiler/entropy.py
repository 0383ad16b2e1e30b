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

from patchc.dtypes import DType, Words
from patchc.formats.change_bits import ChangeBits
from patchc.formats.codecs.conditional.model.classes import MOST_GROUPS, Groups, exponent_of
from patchc.kernels.histograms import Counts, count_steps, raw_bits


class TensorCounts:
    """Counts of one tensor, to which worker threads add its chunks in any order."""

    def __init__(self, dtype: DType) -> None:
        self._shift, self._bits = exponent_of(dtype)
        self._word_bits = dtype.word_bits
        self._words = np.zeros(MOST_GROUPS << self._bits, np.int64)
        self._steps: dict[int, Counts] = {}
        self._lock = threading.Lock()

    def add(
        self,
        held: Counts,
        words: Words,
        positions: NDArray[np.uint32],
        steps: NDArray[np.int64],
        groups: Groups | None = None,
    ) -> None:
        """Count a chunk.

        Args:
            held: its words by group and exponent (:func:`patchc.kernels.histograms.count_words`).
            words: of the base.
            positions, steps: its changes, if any.
            groups: of its words, to be counted apart.
        """
        cells, counts = count_steps(words, positions, steps, self._shift, self._bits, groups)
        with self._lock:
            self._words[: held.size] += held.ravel()
            for cell, own in zip(cells.tolist(), counts, strict=True):
                self._steps[cell] = self._steps.get(cell, 0) + own

    def entropy(self) -> ChangeBits:
        """Of the chunks that were added."""
        if not self._steps:
            return ChangeBits()
        words = self._words[list(self._steps)]
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
