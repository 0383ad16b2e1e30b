"""Random directions through a model's weights, from seeds alone; needs no torch.

As in the code of arXiv 2405.17374 (Peng et al., "Navigating the safety landscape"): each tensor T
of the base has d = g / ‖g‖ · ‖T‖ with Frobenius norms and standard normal g, and d = 0 where the
tensor's name holds "norm". So alpha · d is noise of alpha times the tensor's root mean square.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from patchc.kernels.normals.cpu import add_normals, sum_of_squares
from patchc.kernels.philox import retention_stream

CHUNK = 1 << 18
"""Entries that are computed at once. Sums over a tensor are sums of chunks, so it is fixed."""

_DRAWS = 1 << 12

Values = NDArray[np.float64]


class RandomDirection:
    """One direction.

    Args:
        seed: 64 bits.
        name: the direction's name, such as "1". With the tensor's name it chooses the stream of
            draws.
    """

    def __init__(self, seed: int, name: str) -> None:
        self._seed = np.uint64(seed)
        self._name = name
        self._lengths: dict[str, float] = {}

    def add(self, tensor: str, alpha: float, norm: float, first: int, values: Values) -> None:
        """Add alpha · d to values of a tensor.

        Args:
            tensor: its name.
            alpha: how far.
            norm: ‖T‖ of the base.
            first: flat index of the first value, a multiple of 4.
            values: changed in place.
        """
        if not is_norm(tensor) and norm:
            self._add_normals(tensor, first, alpha * norm / self._lengths[tensor], values)

    def measure(self, tensor: str, words: int, threads: Executor) -> None:
        """Find ‖g‖ of a tensor before :meth:`add`; does nothing the second time."""
        if tensor in self._lengths or is_norm(tensor):
            return

        def square(first: int) -> float:
            values = np.zeros(min(CHUNK, words - first))
            self._add_normals(tensor, first, 1.0, values)
            return float(sum_of_squares(values))

        self._lengths[tensor] = _root_of_sum(square, words, threads)

    def _add_normals(self, tensor: str, first: int, scale: float, values: Values) -> None:
        stream = np.uint64(retention_stream(f"direction {self._name}", tensor))
        draws, scratch = np.empty(_DRAWS, np.uint32), np.empty(_DRAWS)
        add_normals(self._seed, stream, first, scale, draws, scratch, values)


def is_norm(tensor: str) -> bool:
    """Return whether a tensor is one that random directions leave alone, by its name."""
    return "norm" in tensor.lower()


def norm_of(read: Callable[[int, Values], None], words: int, threads: Executor) -> float:
    """Compute the Frobenius norm of a tensor in float64, the same for any number of threads.

    Args:
        read: fills an array with the tensor's values from a flat index on.
        words: entries of the tensor.
        threads: run the chunks.
    """

    def square(first: int) -> float:
        values = np.empty(min(CHUNK, words - first))
        read(first, values)
        return float(sum_of_squares(values))

    return _root_of_sum(square, words, threads)


def _root_of_sum(square: Callable[[int], float], words: int, threads: Executor) -> float:
    return math.sqrt(math.fsum(threads.map(square, range(0, words, CHUNK))))
