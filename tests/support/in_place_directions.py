"""Apply and revert in place as two directions of one test, and models that one of them refuses."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import tree

import patchc

FIRST = "model-00001-of-00002.safetensors"
SECOND = "model-00002-of-00002.safetensors"
CHANGED = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(4)]
CHUNKS = 8


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
    """The run fails as told before it writes; names, contents and time stamps stay."""
    parent = direction.patch.parent
    before, stamps = tree(parent), stamps_of(model or direction.source)
    with pytest.raises(error, match=message):
        direction.run(model, threads=1)
    assert tree(parent) == before
    assert stamps_of(model or direction.source) == stamps


def stamps_of(model: Path) -> dict[str, int]:
    paths = [model] if model.is_file() else model.rglob("*")
    return {str(path): path.stat().st_mtime_ns for path in paths}
