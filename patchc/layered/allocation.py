"""Lets the C library give memory back as soon as it is freed, where a budget counts every byte."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_EARLY = 8 << 20
_LATE = 32 << 20
"""The most that glibc raises its threshold to by itself."""


@contextmanager
def lean_allocation() -> Iterator[None]:
    """Return freed blocks of 8 MiB and more to the system at once; elsewhere than glibc, nothing.

    By itself, glibc keeps freed blocks of up to 32 MiB, and between smaller ones that are in use
    they stay in memory.
    """
    _set(_EARLY)
    try:
        yield
    finally:
        _set(_LATE)


def return_memory() -> None:
    """Give back to the system what Python and the C library hold and nobody uses."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _set(threshold: int) -> None:
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(_MMAP_THRESHOLD, threshold)
        library.mallopt(_TRIM_THRESHOLD, threshold)
    return_memory()
