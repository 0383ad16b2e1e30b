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
    """Arrays that wander between threads: taken, handed on, and given back."""

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []

    def take(self, count: int, dtype: DTypeLike) -> NDArray[Any]:
        """An uninitialised array, for the caller alone until it is given back."""
        needed = count * np.dtype(dtype).itemsize
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(0, np.uint8)
        if memory.nbytes < needed:
            memory = np.empty(needed, np.uint8)
        return memory[:needed].view(dtype)

    def give_back(self, array: NDArray[Any]) -> None:
        """Let others take an array that :meth:`take` gave."""
        self._free.append(array.base)  # type: ignore[arg-type]
