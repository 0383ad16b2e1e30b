"""Several processes of one test run compile each loop once: the others wait, then load it.

Without this, processes that start at the same time all compile the same loops, since machine code
is kept only when it is complete.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher

_held: set[Path] = set()


def compile_once(folder: Path) -> None:
    """From now on, hold a lock in the folder while a loop is compiled for some argument types."""
    compile_now: Callable[[Any, Any], Any] = Dispatcher.compile

    def compile_locked(dispatcher: Any, signature: Any) -> Any:
        function = dispatcher.py_func
        loop = f"{function.__module__}.{function.__qualname__} {signature}"
        # Threads of this process come first, so that none waits for a lock that another one holds.
        with global_compiler_lock, _locked(folder / sha256(loop.encode()).hexdigest()):
            return compile_now(dispatcher, signature)

    Dispatcher.compile = compile_locked


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    if path in _held:  # a loop that calls itself
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _held.add(path)
        try:
            yield
        finally:
            _held.discard(path)
