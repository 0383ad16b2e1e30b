"""Memory that a thread uses again from chunk to chunk, so that it stays flat and its pages warm."""

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
