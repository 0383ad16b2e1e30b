"""The one way in which patchc compiles a loop: Numba, cached, interpreter lock released.

Floating-point contraction and reassociation stay off, so that every backend gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")

Integer: TypeAlias = Any
"""A whole number inside compiled loops, where Python's and NumPy's integers mix freely."""


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a loop over NumPy arrays on first use, and keep the machine code for later runs."""
    options = {"nogil": True, "fastmath": False, "error_model": "numpy"}
    try:
        wrapped: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache folder is writable
        wrapped = numba.njit(**options)(function)
    return cast(Callable[P, R], wrapped)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a small function that compiled loops call; LLVM places it in the caller."""
    wrap: Any = numba.njit(nogil=True, fastmath=False, error_model="numpy", inline="never")
    return cast(Callable[P, R], wrap(function))


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a loop that makes no array; see :func:`compiled`.

    Counting references to arrays, an atomic operation at every call of a small function that takes
    one, would cost an innermost loop more than its work; here there is none.
    """
    options = {"nogil": True, "fastmath": False, "error_model": "numpy", "_nrt": False}
    try:
        wrapped: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # as for compiled()
        wrapped = numba.njit(**options)(function)
    return cast(Callable[P, R], wrapped)


def part(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a small function that kernels call, and that makes no array itself."""
    return _part(function, "never")


def spliced(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a part into its callers: quicker where it is called most, but slow to compile.

    A call hands over every field of every array; at some ten a call, that costs more than the work.
    """
    return _part(function, "always")


def _part(function: Callable[P, R], inline: str) -> Callable[P, R]:
    options = {"nogil": True, "fastmath": False, "error_model": "numpy", "_nrt": False}
    wrap: Any = numba.njit(inline=inline, **options)
    return cast(Callable[P, R], wrap(function))
