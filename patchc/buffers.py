"""Reused buffers, one set a thread."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[str, NDArray[np.uint8]] = {}


_scratch = _Scratch()


def scratch(slot: str, count: int, dtype: DTypeLike) -> NDArray[Any]:
    """An uninitialised array of this thread, valid until the thread asks for ``slot`` again.

    Reused from chunk to chunk, so that memory stays flat and pages stay warm.
    """
    needed = count * np.dtype(dtype).itemsize
    buffer = _scratch.buffers.get(slot)
    if buffer is None or buffer.nbytes < needed:
        buffer = np.empty(max(needed, 1), np.uint8)
        _scratch.buffers[slot] = buffer
    return buffer[:needed].view(dtype)
