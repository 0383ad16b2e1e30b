"""Apply and revert as two directions of one test, and models that one of them refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import (
    Tensors,
    names_of,
    tree,
)

import patchc

FIRST = "model-00001-of-00002.safetensors"
SECOND = "model-00002-of-00002.safetensors"
CHANGED = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(4)]


@dataclass(frozen=True)
class Direction:
    """One of the two verbs, from the model that it takes to the one that it writes."""

    name: str
    patch: Path
    source: Path
    target: Path
    source_tensors: Tensors
    target_tensors: Tensors

    def run(self, out: Path, model: Path | None = None, **options: Any) -> Any:
        verb = patchc.apply if self.name == "apply" else patchc.revert
        return verb(self.patch, model or self.source, out=out, **options)


class Failing:
    """A system call that fails the ``number``-th time that it is called, from 0."""

    def __init__(self, call: Callable[..., Any], number: int, code: int) -> None:
        self._call = call
        self._left = count(number, -1)
        self._code = code

    def __call__(self, *arguments: Any) -> Any:
        if next(self._left) == 0:
            raise OSError(self._code, os.strerror(self._code))
        return self._call(*arguments)


def refused(
    direction: Direction, error: type[Exception], message: str, model: Path | None = None
) -> None:
    """The run fails as told, leaves nothing at or beside the output, and changes no input."""
    model = model or direction.source
    parent = direction.patch.parent
    names, before = names_of(parent), tree(model)
    with pytest.raises(error, match=message):
        direction.run(parent / "out", model, threads=1)
    assert names_of(parent) == names
    assert tree(model) == before
