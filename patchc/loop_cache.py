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
- installations can share a folder: saving a loop removes other code of it only where nothing has
  used that for a month.

The files lie in the folder that ``PATCHC_CACHE`` names, and otherwise, or where that cannot be
written, in the user's cache: ``$XDG_CACHE_HOME/patchc/loops`` or ``~/.cache/patchc/loops``. They
are code, so a folder that somebody else can write is not used (:mod:`patchc.code_folder`). Where no
folder can be written, each process compiles for itself, and :func:`not_kept` says why.
"""

from __future__ import annotations

import errno
import glob
import os
import pickle
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import llvmlite
import numba
import numpy as np
from blake3 import blake3
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.core.types.containers import BaseTuple, NamedTuple, NamedUniTuple

from patchc.code_folder import check_folder, make_folder, read_code, write_code

_DIGEST_BYTES = 32
_DAY = 24 * 60 * 60
_UNUSED = 30 * _DAY

_VERSIONS = f"{sys.implementation.cache_tag} {numba.__version__} {llvmlite.__version__}"

_NOWHERE = "no folder for compiled code can be written"
_ADVICE = (
    "name a folder of your own with PATCHC_CACHE, or fill the one of an installation with "
    "`patchc warm-up`"
)


@dataclass
class Counts:
    """What has become of the loops that this process asked for.

    Attributes:
        compiled: loops that had to be compiled, for each combination of argument types.
        found: loops whose code was kept.
        problem: why code could not be kept, or kept code not be used; "" if nothing was wrong.
        folder: where code was last kept or found; "" if nowhere.
    """

    compiled: int = 0
    found: int = 0
    problem: str = ""
    folder: str = ""


counts = Counts()
"""Of this process."""


def not_kept() -> str:
    """Why what this process compiled will be compiled again, and what to do; "" if it will not."""
    return f"{counts.problem}; {_ADVICE}" if counts.compiled and counts.problem else ""


def folders() -> list[Path]:
    """Where code may be kept; the first that can be written has what is compiled."""
    named, cache_home = os.environ.get("PATCHC_CACHE"), os.environ.get("XDG_CACHE_HOME")
    places = [Path(named).absolute()] if named else []
    with suppress(RuntimeError):  # no home
        base = Path(cache_home) if cache_home else Path.home() / ".cache"
        places.append(base.absolute() / "patchc" / "loops")
    return places


def unwritable() -> str:
    """Why nothing that is compiled could be kept, and what to do; "" if a folder can be written."""
    for folder in folders():
        with suppress(OSError):
            make_folder(folder)
            tried = _checked(folder) / f"tried.{secrets.token_hex(4)}"
            write_code(tried, b"")
            tried.unlink()
            return ""
    return f"{_NOWHERE}; {_ADVICE}"


class LoopCache(NullCache):  # type: ignore[misc]
    """The kept machine code of one loop, in the form in which Numba's dispatchers ask for it.

    Args:
        function: the loop before it is compiled.
        options: what it is compiled with.

    Raises:
        TypeError: the loop takes something from elsewhere that has no digest.
    """

    def __init__(self, function: FunctionType, options: dict[str, Any]) -> None:
        part = ".part" if options.get("no_cpython_wrapper") else ""
        name = f"{function.__module__}.{function.__qualname__}{part}"
        self._prefix = f"{name}-{_digest(_VERSIONS)[:8]}-"
        self._digest = _digest((options, function_digest(function)))

    @property
    def cache_path(self) -> str:
        """The folder that is looked into first."""
        return str(next(iter(folders()), ""))

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The code for a combination of argument types; None where it has to be compiled."""
        target.refresh()
        name = self._file_name(signature, target.codegen())
        for number, folder in enumerate(folders()):
            code = _read(folder, name)
            if code is not None:
                # It may need something that is gone, such as a module under another name.
                with suppress(Exception):
                    found = CompileResult._rebuild(target, *pickle.loads(code))
                    counts.found += 1
                    counts.folder = str(folder)
                    self._keep(name, code, folders()[:number])
                    return found
        return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep what has been compiled, if a folder can be written."""
        counts.compiled += 1
        if compiled.lifted or compiled.library.has_dynamic_globals:
            return  # it has addresses of this process
        name = self._file_name(signature, compiled.library.codegen)
        if not self._keep(name, dumps(compiled._reduce()), folders()):
            counts.problem = counts.problem or _NOWHERE

    def _keep(self, name: str, code: bytes, places: list[Path]) -> bool:
        """Write code into the first folder that can be written; return whether there was one."""
        for folder in places:
            try:
                make_folder(folder)
                real = _checked(folder)
                _write(real / name, blake3(code).digest() + code)
            except OSError as error:
                _note(error)
                continue
            counts.folder = str(folder)
            self._remove_outdated(real)
            return True
        return False

    def _file_name(self, signature: Any, codegen: Any) -> str:
        arguments = signature if isinstance(signature, tuple) else signature.args
        processor = codegen.magic_tuple()
        types_digest = _digest((str(arguments), list(_field_names(arguments)), processor))
        return f"{self._prefix}{self._digest}-{types_digest}.nbc"

    def _remove_outdated(self, folder: Path) -> None:
        """Remove other code of the loop, of an earlier version, that nothing has used for long."""
        oldest = time.time() - _UNUSED
        with suppress(OSError):
            for path in folder.glob(f"{glob.escape(self._prefix)}*"):
                own = path.name.startswith(self._prefix + self._digest) and path.suffix == ".nbc"
                if not own and path.stat().st_mtime < oldest:
                    path.unlink(missing_ok=True)


@cache
def _checked(folder: Path) -> Path:
    return check_folder(folder)


def _read(folder: Path, name: str) -> bytes | None:
    """The code in a file; None where it is missing, damaged or not to be trusted."""
    try:
        path = _checked(folder) / name
        content = read_code(path)
    except OSError as error:
        _note(error)
        return None
    code = content[_DIGEST_BYTES:]
    if content[:_DIGEST_BYTES] != blake3(code).digest():
        return None
    with suppress(OSError):
        if path.stat().st_mtime < time.time() - _DAY:
            os.utime(path)
    return code


def _write(path: Path, content: bytes) -> None:
    staging = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        write_code(staging, content)
        staging.replace(path)
    finally:
        with suppress(OSError):
            staging.unlink()


def _note(error: OSError) -> None:
    """Remember that a folder or file is not used because others can write it."""
    if error.errno == errno.EPERM:
        counts.problem = f"compiled code in {error.filename} is not used, since {error.strerror}"


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
