"""Apply and revert in place as two directions of one test, and models that one of them refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_checkpoints import read_model, tree

import patchc

FIRST = "model-00001-of-00002.safetensors"
SECOND = "model-00002-of-00002.safetensors"
CHANGED = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(4)]
CHUNKS = 8
TORN = CHANGED[1]
CHUNK_BYTES = 2 * 4096


@dataclass(frozen=True)
class Direction:
    """One of the two verbs, and the model's folders before and after it."""

    name: str
    patch: Path
    source: Path
    target: Path

    def run(self, model: Path | None = None, **options: Any) -> Any:
        verb = patchc.apply if self.name == "apply" else patchc.revert
        return verb(self.patch, model or self.source, in_place=True, **options)

    def back(self, model: Path) -> Any:
        verb = patchc.revert if self.name == "apply" else patchc.apply
        return verb(self.patch, model, in_place=True)


def partly_changed(direction: Direction, folder: Path, shard: str = FIRST) -> Path:
    """A model one shard of which is as after the run."""
    mixed = shutil.copytree(direction.source, folder)
    shutil.copyfile(direction.target / shard, mixed / shard)
    return mixed


def refused(
    direction: Direction, error: type[Exception], message: str, model: Path | None = None
) -> None:
    """The run fails as told before it writes; names, contents and time stamps stay.

    A journal that was there stays too; only who held it last is new.
    """
    parent, model = direction.patch.parent, model or direction.source
    before, stamps = _without_owner(tree(parent)), stamps_of(model)
    with pytest.raises(error, match=message):
        direction.run(model, threads=1)
    assert _without_owner(tree(parent)) == before
    assert stamps_of(model) == stamps


def _without_owner(files: dict[str, tuple[int, bytes]]) -> dict[str, tuple[int, bytes]]:
    return {
        name: (mode, content[512:] if name.endswith(".patchc-journal") else content)
        for name, (mode, content) in files.items()
    }


def is_shard(descriptor: int) -> bool:
    """Whether an open file is a shard of a model, and not its journal or an output."""
    return Path(f"/proc/self/fd/{descriptor}").readlink().name.endswith(".safetensors")


def journal_of(model: Path) -> Path:
    return model / ".patchc-journal"


def place_of(model: Path, name: str) -> tuple[Path, int]:
    """The file that holds a tensor, and the offset of its first byte."""
    for shard in model.glob("*.safetensors"):
        content = shard.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        entry = json.loads(content[8:start]).get(name)
        if entry:
            return shard, start + entry["data_offsets"][0]
    raise LookupError(name)


def put(model: Path, name: str, offset: int, data: bytes) -> None:
    """Overwrite bytes of a tensor in its file."""
    shard, start = place_of(model, name)
    with shard.open("r+b") as file:
        file.seek(start + offset)
        file.write(data)


def stamps_of(model: Path) -> dict[str, int]:
    paths = [model] if model.is_file() else model.rglob("*")
    return {
        str(path): path.lstat().st_mtime_ns
        for path in paths
        if path.suffix != ".patchc-journal" and path.name != ".patchc-journal"
    }


def tear(direction: Direction, seed: int, name: str = TORN) -> bytes:
    """Write some sectors of the first chunk of a tensor, as a disk may when the power goes."""
    before, after = (
        np.frombuffer(read_model(model)[name].data[:CHUNK_BYTES], np.uint8).reshape(-1, 512)
        for model in (direction.source, direction.target)
    )
    written = np.random.default_rng(seed).random(len(before)) < 0.5
    torn = np.where(written[:, None], after, before).tobytes()
    assert torn not in (before.tobytes(), after.tobytes())
    put(direction.source, name, 0, torn)
    return torn
