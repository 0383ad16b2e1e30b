"""Compiled loops: Python functions over NumPy arrays that Numba compiles when first called.

=====================  ============================================================================
``loop``               the usual one, called from Python or from other compiled functions
``allocating_loop``    a loop that makes or returns an array, or calls one that does
``inlined``            a small function inside innermost loops, copied into its callers
``intrinsic``          a function that writes LLVM's language itself (:mod:`patchc.simd`)
=====================  ============================================================================

A ``loop`` counts no references to arrays: an atomic operation at each call of a small function
would cost an innermost loop more than its work. So it can neither make nor return an array, and
Numba refuses to compile one that tries. ``inlined`` pays only where a call costs as much as the
work, since a call hands over every field of every array; it makes compilation slow.

The first run on a machine waits for the compiler, so a loop is compiled apart for Python and for
other loops. Only the former has code that takes Python's objects, half of all code; the latter
knows no constants of its callers, so that each combination of types is compiled once.

Floating-point contraction and reassociation are off, so that every backend gives the same bits.
The interpreter lock is released. Machine code is kept from run to run (:mod:`patchc.loop_cache`).
Numba itself is imported when the first loop is called: that takes longer than many commands.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, update_wrapper
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")

Integer: TypeAlias = Any
"""A whole number inside compiled loops, where Python's and NumPy's integers mix freely."""

_COMMON = {
    "nogil": True,
    "fastmath": False,
    "error_model": "numpy",
    "no_cfunc_wrapper": True,  # nothing calls loops from C
}
_lock = threading.RLock()
_listeners: list[Callable[[bool], None]] = []


class _Compiled:
    """A function that Numba compiles on first use; other loops see it as what Numba makes.

    Attributes:
        options: how Numba compiles it.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        update_wrapper(self, function)
        self.options = _COMMON | options
        self._dispatcher: Any = None

    def __call__(self, *arguments: Any) -> Any:
        return (self._dispatcher or self._compile())(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dispatcher or self._compile(), name)

    def _compile(self) -> Any:
        with _lock:
            if self._dispatcher is None:
                self._dispatcher = self._make(self.__wrapped__)
            return self._dispatcher

    def _make(self, function: Any) -> Any:
        import numba

        _listen()
        return numba.njit(**self.options)(function)


class _Kept(_Compiled):
    """A function whose machine code is kept."""

    def _make(self, function: Any) -> Any:
        from patchc.loop_cache import LoopCache

        dispatcher = super()._make(function)
        # Where something has no digest, each process compiles for itself.
        with suppress(TypeError):
            dispatcher._cache = LoopCache(function, self.options)
        return dispatcher


class _Part(_Kept):
    """A loop as other loops call it; Python cannot."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        super().__init__(function, no_cpython_wrapper=True, **options)

    def _make(self, function: Any) -> Any:
        from numba.core.types.misc import unliteral

        dispatcher = super()._make(function)
        template_for = dispatcher.get_call_template

        def template_without_constants(arguments: Any, named: Any) -> Any:
            kinds = {name: unliteral(kind) for name, kind in named.items()}
            return template_for(tuple(map(unliteral, arguments)), kinds)

        dispatcher.get_call_template = template_without_constants
        return dispatcher


class _Loop(_Kept):
    """A loop as Python calls it."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        super().__init__(function, **options)
        self._part = _Part(function, **options)

    @property
    def _numba_type_(self) -> Any:
        return self._part._numba_type_


class _Intrinsic(_Compiled):
    """A function that writes LLVM's language itself."""

    def _make(self, function: Any) -> Any:
        from numba.extending import intrinsic

        return intrinsic(function)

    @property
    def _numba_type_(self) -> Any:
        from numba.core.registry import cpu_target

        made = self._compile()
        cpu_target.typing_context.refresh()  # it may be made while a loop that calls it is compiled
        cpu_target.target_context.refresh()
        return cpu_target.typing_context.resolve_value_type(made)


def loop(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that neither makes nor returns an array."""
    return cast(Callable[P, R], _Loop(function, _nrt=False))


def allocating_loop(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that makes or returns an array, or calls one that does."""
    return cast(Callable[P, R], _Loop(function))


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Copy a small function into each compiled function that calls it."""
    return cast(Callable[P, R], _Compiled(function, inline="always", _nrt=False))


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make an intrinsic of a function that types itself and writes its code in LLVM's language.

    It is called without its first argument, the typing context.
    """
    return _Intrinsic(function)


def not_kept() -> str:
    """Why the next run has to compile what this process has compiled; "" if it has not."""
    # It is loaded with the first loop, and another thread may be loading it at an interrupt.
    told = getattr(sys.modules.get("patchc.loop_cache"), "not_kept", None)
    return cast(str, told()) if told else ""


@contextmanager
def telling_of_compilation(tell: Callable[[bool], None]) -> Iterator[None]:
    """Call ``tell`` with True before a loop is compiled in this block, and with False after it.

    All loops of a command take half a minute, once on a machine; afterwards they are only loaded.
    """
    _listeners.append(tell)
    try:
        yield
    finally:
        _listeners.remove(tell)


@cache
def _listen() -> None:
    from numba.core import event

    class Listener(event.Listener):  # type: ignore[misc]
        depth = 0  # loops that a loop calls are compiled while it is; one thread at a time compiles

        def on_start(self, _event: Any) -> None:
            self.depth += 1
            if self.depth == 1:
                _tell(True)

        def on_end(self, _event: Any) -> None:
            self.depth -= 1
            if not self.depth:
                _tell(False)

    event.register("numba:compile", Listener())


def _tell(begins: bool) -> None:
    for tell in _listeners:
        tell(begins)
