"""Lets the C library give memory back as soon as it is freed, where a budget counts every byte."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_EARLY = 2 << 20
_LATE = 32 << 20
"""The most that glibc raises its threshold to by itself."""


@contextmanager
def lean_allocation() -> Iterator[None]:
    """Return freed blocks of 2 MiB and more to the system at once; elsewhere than glibc, nothing.

    By itself, glibc keeps freed blocks of up to 32 MiB, and between smaller ones that are in use
    they stay in memory.
    """
    _set(_EARLY)
    try:
        yield
    finally:
        _set(_LATE)


def _set(threshold: int) -> None:
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(_MMAP_THRESHOLD, threshold)
        library.mallopt(_TRIM_THRESHOLD, threshold)
        library.malloc_trim(0)
