"""Machine code of compiled loops, kept on disk from one run to the next.

Numba's own cache looks only at the file in which a loop stands. The constants and functions that a
loop takes from other files are in its machine code too, so an edit of these would leave old code
in use. Here each loop has a *digest* of everything that it is made of: its bytecode and constants,
the values of the globals that it names, and in the same way every function that it calls. The
digest needs no list of folders or modules. Docstrings, comments and places in the file are not in
it, so editing them compiles nothing anew.

One file holds the code of one loop for one combination of argument types, and its name has the
digests of both. It follows that

- changed code is never looked for under an old name, so old code cannot run;
- files appear whole, by renaming, so processes can write at the same time without a lock;
- a file begins with a digest of the rest, and counts as missing where it is damaged;
- where no folder can be written, each process compiles for itself.

Saving a loop removes the files that earlier versions of it left, by the same Python and Numba. The
files lie where Numba puts its own: in ``NUMBA_CACHE_DIR``, in ``__pycache__`` beside the source, or
in the user's cache.
"""

from __future__ import annotations

import pickle
import secrets
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import llvmlite
import numba
import numpy as np
from blake3 import blake3
from numba.core.caching import CompileResultCacheImpl, NullCache
from numba.core.serialize import dumps
from numba.core.types.containers import BaseTuple, NamedTuple, NamedUniTuple

_DIGEST_BYTES = 32

_VERSIONS = f"{sys.implementation.cache_tag} {numba.__version__} {llvmlite.__version__}"


class LoopCache(NullCache):  # type: ignore[misc]
    """The kept machine code of one loop, in the form in which Numba's dispatchers ask for it.

    Args:
        function: the loop before it is compiled.
        options: what it is compiled with.

    Raises:
        RuntimeError: no folder can be written.
        TypeError: the loop takes something from elsewhere that has no digest.
    """

    def __init__(self, function: FunctionType, options: dict[str, Any]) -> None:
        self._storage = CompileResultCacheImpl(function)
        name = f"{Path(function.__code__.co_filename).stem}.{function.__qualname__}"
        self._prefix = f"{name}-{_digest(_VERSIONS)[:8]}-"
        self._digest = _digest((options, function_digest(function)))

    @property
    def cache_path(self) -> str:
        """The folder that holds the files."""
        return str(self._storage.locator.get_cache_path())

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The code for a combination of argument types; None where it has to be compiled."""
        target.refresh()
        try:
            content = self._path(signature, target.codegen()).read_bytes()
        except OSError:
            return None
        code = content[_DIGEST_BYTES:]
        if content[:_DIGEST_BYTES] != blake3(code).digest():
            return None  # damaged
        try:
            return self._storage.rebuild(target, pickle.loads(code))
        except Exception:  # it needs something that is gone, such as a module under another name
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep what has been compiled, if the folder can be written."""
        if not self._storage.check_cachable(compiled):
            return
        path = self._path(signature, compiled.codegen)
        staging = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        code = dumps(self._storage.reduce(compiled))
        try:
            with suppress(OSError):
                staging.write_bytes(blake3(code).digest() + code)
                staging.replace(path)
                self._remove_outdated(path.parent)
        finally:
            with suppress(OSError):
                staging.unlink()

    def _path(self, signature: Any, codegen: Any) -> Path:
        arguments = signature if isinstance(signature, tuple) else signature.args
        processor = codegen.magic_tuple()
        types_digest = _digest((str(arguments), list(_field_names(arguments)), processor))
        name = f"{self._prefix}{self._digest}-{types_digest}.nbc"
        return Path(self.cache_path, name)

    def _remove_outdated(self, folder: Path) -> None:
        for path in folder.glob(f"{self._prefix}*"):
            if not path.name.startswith(self._prefix + self._digest):
                path.unlink(missing_ok=True)


def _field_names(arguments: Any) -> Iterator[tuple[str, ...]]:
    """Home and fields of the classes of named tuples, which the names of Numba's types lack."""
    for one in arguments:
        if isinstance(one, NamedTuple | NamedUniTuple):
            yield one.instance_class.__module__, one.instance_class.__qualname__, *one.fields
        if isinstance(one, BaseTuple):
            yield from _field_names(one)


@cache
def function_digest(function: FunctionType) -> str:
    """A digest of a function's code and of everything that it takes from elsewhere.

    Raises:
        TypeError: something has no digest.
    """
    captured = [_described(cell.cell_contents, ()) for cell in function.__closure__ or ()]
    defaults = function.__defaults__, function.__kwdefaults__
    code = _code_described(function.__code__, function)
    return _digest((code, captured, _described(defaults, ())))


def _code_described(code: CodeType, function: FunctionType) -> object:
    """A function's code, or code inside it, as values whose ``repr`` tells all that is in them."""
    constants = [
        _code_described(constant, function)
        if isinstance(constant, CodeType)
        else _described(None if constant is function.__doc__ else constant, ())
        for constant in code.co_consts
    ]
    variables = code.co_argcount, code.co_varnames, code.co_cellvars, code.co_freevars
    named = {
        name: function.__globals__[name] for name in code.co_names if name in function.__globals__
    }
    taken = [
        (name, _described(value, code.co_names))
        for name, value in named.items()
        if getattr(value, "__wrapped__", value) is not function  # it may call itself
    ]
    return code.co_code, code.co_names, variables, constants, taken


def _described(value: Any, names: tuple[str, ...]) -> object:
    """A value as one whose ``repr`` tells all of it; of a module, only what ``names`` mention."""
    if isinstance(value, np.ndarray):
        return "array", value.dtype.str, value.shape, blake3(value.tobytes()).hexdigest()
    if isinstance(value, np.generic):
        return value.dtype.str, value.tobytes()
    if isinstance(value, slice):
        return "slice", [_described(one, ()) for one in (value.start, value.stop, value.step)]
    if isinstance(value, frozenset):
        return "frozenset", sorted(map(repr, value))
    if (
        value is None
        or value is ...
        or isinstance(value, bool | int | float | complex | str | bytes)
    ):
        return type(value).__name__, value
    if isinstance(value, tuple):
        return type(value).__qualname__, [_described(one, names) for one in value]
    if isinstance(value, dict):
        return [(key, _described(one, names)) for key, one in value.items()]
    if isinstance(value, FunctionType):
        return function_digest(value)
    if isinstance(getattr(value, "__wrapped__", None), FunctionType):  # one of patchc.jit's
        return type(value).__name__, value.options, function_digest(value.__wrapped__)
    if isinstance(value, ModuleType):
        return value.__name__, _module_described(value, names)
    if isinstance(value, type):
        fields = getattr(value, "_fields", ()), getattr(value, "_field_defaults", {})
        return value.__module__, value.__qualname__, _described(fields, ())
    raise TypeError(f"a compiled loop takes {value!r} from its module, which has no digest")


def _module_described(module: ModuleType, names: tuple[str, ...]) -> object:
    """What code takes from one of patchc's modules; other packages count by their versions."""
    if not module.__name__.startswith(__name__.partition(".")[0] + "."):
        return getattr(module, "__version__", "")
    return [(name, _described(vars(module)[name], names)) for name in names if name in vars(module)]


def _digest(description: object) -> str:
    return blake3(repr(description).encode()).hexdigest(length=16)
