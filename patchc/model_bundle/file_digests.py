"""Digests of a model's files, several files at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import Any

from blake3 import blake3

from patchc.errors import CheckpointError
from patchc.model_bundle.model_files import path_of
from patchc.regular_file import open_regular
from patchc.runtime.runtime import Runtime
from patchc.system_errors import reason

HASHES: dict[str, Callable[[], Any]] = {
    "sha256": hashlib.sha256,
    "blake2b": hashlib.blake2b,
    "blake3": blake3,
}
"""The hashes that a bundle may name."""

_BLOCK_BYTES = 1 << 20
_PAUSE = 0.1
"""Seconds between looks at what the threads have done."""


def digest_files(
    model: Path, names: Sequence[str], hash_type: str, runtime: Runtime
) -> dict[str, str]:
    """The digests of files by their names, in hexadecimal; an interrupt ends the reading at once.

    Raises:
        CheckpointError: a file cannot be read.
    """
    read, stopped = [0] * len(names), [False]

    def digest(place: int) -> str:
        path, hasher = path_of(model, names[place]), HASHES[hash_type]()
        try:
            with os.fdopen(open_regular(path), "rb", buffering=0) as file:
                while not stopped[0] and (block := file.read(_BLOCK_BYTES)):
                    hasher.update(block)
                    read[place] += len(block)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot read: {reason(error)}") from error
        return str(hasher.hexdigest())

    task = runtime.task("hash files", _bytes_of(model, names), "bytes")
    try:
        futures = runtime.submit(digest, range(len(names)))
        waiting = set(futures)
        while waiting:
            waiting = wait(waiting, _PAUSE).not_done
            task.advance(sum(read) - task.done)
        return {name: future.result() for name, future in zip(names, futures, strict=True)}
    finally:
        stopped[0] = True


def _bytes_of(model: Path, names: Sequence[str]) -> int:
    try:
        return sum(path_of(model, name).stat().st_size for name in names)
    except OSError as error:
        raise CheckpointError(f"{error.filename}: cannot read: {reason(error)}") from error
