"""Memory that is used again from chunk to chunk, so that it stays flat and its pages warm."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class ThreadBuffer(threading.local):
    """One reused array for each thread that asks; whoever makes it owns the memory of all."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def __call__(self, count: int, dtype: DTypeLike) -> NDArray[Any]:
        """An uninitialised array of this thread, valid until the thread calls again."""
        needed = count * np.dtype(dtype).itemsize
        if self._memory.nbytes < needed:
            self._memory = np.empty(needed, np.uint8)
        return self._memory[:needed].view(dtype)


class BufferPool:
    """Arrays of one dtype that wander between threads: taken, handed on, and given back."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._free: list[NDArray[Any]] = []

    def take(self, count: int) -> NDArray[Any]:
        """An uninitialised array, for the caller alone until it gives it back."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(0, self._dtype)
        if len(memory) < count:
            memory = np.empty(count, self._dtype)
        return memory[:count]

    def give_back(self, array: NDArray[Any]) -> None:
        """Let others take the array that :meth:`take` gave."""
        self._free.append(array if array.base is None else array.base)
