"""What a target is, and what counts as a finding."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import struct
import tempfile
import traceback
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fuzzing.mutation.draws import Draws
from patchc.errors import PatchcError

MEMORY = 64 << 20
"""Bytes that one input may take beyond the caps that its format declares."""

CPU_BYTES = 64 << 10
"""An input may take one second of one core for each of so many bytes begun."""

CORPUS = Path(__file__).parents[1] / "corpus"
REGRESSIONS = Path(__file__).parents[1] / "regressions"


_WITHOUT_STRUCTURE = (
    ValueError, LookupError, TypeError, AttributeError, RecursionError, ArithmeticError,
    AssertionError, struct.error, zlib.error,
)  # fmt: skip


class BrokenPromiseError(Exception):
    """An input was accepted, and what was read breaks a promise of the reader."""


@dataclass(frozen=True)
class Target:
    """A reader, and how its inputs are made.

    Attributes:
        name: of the target and of its folder of seeds.
        read: reads an input; it returns, or raises one of ``refusals``.
        mutate: changes an input so that it still passes the checks that come first.
        modules: whose lines its coverage is counted in.
        executions: mutated inputs in `make test`.
        refusals: what it may raise.
        most_bytes: of an input.
        memory: bytes that an input may take at once: :data:`MEMORY` and the caps of its format.
    """

    name: str
    read: Callable[[bytes], object]
    mutate: Callable[[bytes, Draws], bytes]
    modules: tuple[str, ...]
    executions: int
    refusals: tuple[type[Exception], ...] = (PatchcError,)
    most_bytes: int = 1 << 14
    memory: int = MEMORY

    def seeds(self) -> list[bytes]:
        """The committed inputs."""
        return [path.read_bytes() for path in sorted((CORPUS / self.name).iterdir())]

    def mutated(self, data: bytes, draws: Draws) -> bytes:
        """Another input; bytes that have lost their structure are changed as plain ones."""
        try:
            found = self.mutate(data, draws)
        except _WITHOUT_STRUCTURE:
            found = draws.plain(data, self.most_bytes)
        return found[: self.most_bytes]

    def cpu_seconds(self, data: bytes) -> float:
        """How long an input may take."""
        return max(1.0, len(data) / CPU_BYTES)


def attempt(target: Target, data: bytes) -> Exception | None:
    """Let a target read an input; the error that it should not have raised, if it did."""
    try:
        target.read(data)
    except target.refusals as refusal:
        return None if str(refusal) else BrokenPromiseError("it is refused without a message")
    except Exception as error:
        return error
    return None


_TELLING = ("expect", "stop")
"""Functions that say what is wrong elsewhere."""


def place_of(error: BaseException) -> str:
    """What tells findings apart: the kind of error and the last line of the project in it."""
    frames = traceback.extract_tb(error.__traceback__)
    root = str(Path(__file__).parents[3])
    own = [frame for frame in frames if frame.filename.startswith(root + "/")]
    own = [frame for frame in own if "/.venv/" not in frame.filename] or list(frames)
    own = [frame for frame in own if frame.name not in _TELLING]
    if not own:
        return type(error).__name__
    where = f"{os.path.relpath(own[-1].filename, root)}:{own[-1].lineno}"
    return f"{type(error).__name__} at {where}"


def expect(kept: bool, promise: str) -> None:
    """Raise unless a promise is kept."""
    if not kept:
        raise BrokenPromiseError(promise)


@cache
def scratch() -> Path:
    """A folder of this process, in memory where the system has such a place."""
    memory = Path("/dev/shm")
    roomy = os.environ.get("TMPDIR") is None and os.access(memory, os.W_OK)
    folder = tempfile.mkdtemp(prefix="patchc-fuzz-", dir=memory if roomy else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def written(name: str, data: bytes) -> Path:
    """A file with this content in the scratch folder."""
    path = scratch() / name
    path.write_bytes(data)
    return path


def folder_of(files: Mapping[str, bytes]) -> Path:
    """A folder that holds these files and no others."""
    folder = scratch() / "folder"
    folder.mkdir(exist_ok=True)
    for left in folder.iterdir():
        left.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def stays_json(value: Any) -> None:
    """Check that a value can be written as JSON and read again."""
    expect(json.loads(json.dumps(value, allow_nan=False)) == value, "it does not stay JSON")
