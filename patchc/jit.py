"""The one way in which patchc compiles a loop: Numba, cached, interpreter lock released.

Floating-point contraction and reassociation stay off, so that every backend gives the same bits.
Numba is imported, and a loop is handed to it, when the first loop is called: it takes longer than
many a command.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, update_wrapper
from pathlib import Path
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

from patchc.loop_cache import forget_outdated

P = ParamSpec("P")
R = TypeVar("R")

Integer: TypeAlias = Any
"""A whole number inside compiled loops, where Python's and NumPy's integers mix freely."""

_OPTIONS = {"nogil": True, "fastmath": False, "error_model": "numpy"}
_lock = threading.RLock()
_listeners: list[Callable[[bool], None]] = []


class _Loop:
    """A function that Numba compiles on first use; compiled loops take it for what Numba makes."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        update_wrapper(self, function)
        self._function = function
        self._options = options
        self._dispatcher: Any = None

    def __call__(self, *arguments: Any) -> Any:
        return (self._dispatcher or self._compile())(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dispatcher or self._compile(), name)

    def _make(self) -> Any:
        return _numba_function(self._function, self._options)

    def _compile(self) -> Any:
        with _lock:
            if self._dispatcher is None:
                self._dispatcher = self._make()
            return self._dispatcher


class _Intrinsic(_Loop):
    """The same for a function that writes LLVM's language itself."""

    def _make(self) -> Any:
        from numba.extending import intrinsic

        return intrinsic(self._function)

    @property
    def _numba_type_(self) -> Any:
        from numba.core.registry import cpu_target

        made = self._compile()
        cpu_target.typing_context.refresh()  # it may be made while a loop that calls it is compiled
        cpu_target.target_context.refresh()
        return cpu_target.typing_context.resolve_value_type(made)


@contextmanager
def telling_of_compilation(tell: Callable[[bool], None]) -> Iterator[None]:
    """Meanwhile, call ``tell`` with True when a loop is compiled anew, and with False after it.

    All loops of a command take half a minute, once on a machine; afterwards they are only loaded.
    """
    _listeners.append(tell)
    try:
        yield
    finally:
        _listeners.remove(tell)


def _tell(begins: bool) -> None:
    for tell in _listeners:
        tell(begins)


@cache
def _listen() -> None:
    from numba.core import event

    class Listener(event.Listener):  # type: ignore[misc]
        depth = 0  # a loop's parts are compiled while it is; one thread at a time compiles

        def on_start(self, _event: Any) -> None:
            self.depth += 1
            if self.depth == 1:
                _tell(True)

        def on_end(self, _event: Any) -> None:
            self.depth -= 1
            if not self.depth:
                _tell(False)

    event.register("numba:compile", Listener())


@cache
def _forget_outdated(folder: str) -> None:
    forget_outdated(Path(folder))


def _numba_function(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    import numba

    _listen()
    try:
        made = numba.njit(**options, **_OPTIONS)(function)
        if options.get("cache"):
            _forget_outdated(made.stats.cache_path)
        return made
    except (RuntimeError, OSError):  # no folder, the package's or the user's, can be written
        return numba.njit(**options | {"cache": False}, **_OPTIONS)(function)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a loop over NumPy arrays on first use, and keep the machine code for later runs."""
    return cast(Callable[P, R], _Loop(function, cache=True))


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a small function that compiled loops call; LLVM places it in the caller."""
    return cast(Callable[P, R], _Loop(function, inline="never"))


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a loop that makes no array; see :func:`compiled`.

    Counting references to arrays, an atomic operation at every call of a small function that takes
    one, would cost an innermost loop more than its work; here there is none.
    """
    return cast(Callable[P, R], _Loop(function, cache=True, _nrt=False))


def kernel_helper(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a small function that kernels call, and that makes no array itself."""
    return cast(Callable[P, R], _Loop(function, inline="never", _nrt=False))


def always_inline(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a helper into its callers: quicker where it is called most, but slow to compile.

    A call hands over every field of every array; at some ten a call, that costs more than the work.
    """
    return cast(Callable[P, R], _Loop(function, inline="always", _nrt=False))


def generated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make an intrinsic of a function that types itself and writes its code in LLVM's language.

    It is called without its first argument, the typing context.
    """
    return _Intrinsic(function)
