"""Chains of models and the patches between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import tree, write_model

import patchc
from patchc.compiler.steps import Codec
from patchc.errors import (
    PatchcError,
)

UP, NORM, STILL = "layers.0.up.weight", "norm.weight", "still.weight"


@dataclass(frozen=True)
class Chain:
    """Models made in turn, and the patches between them."""

    models: list[Path]
    patches: list[Path]


def chain_of(folder: Path, states: list[dict[str, Any]], codec: Codec = "rice") -> Chain:
    models = [write_model(folder / str(i), state) for i, state in enumerate(states)]
    patches = []
    for i, (before, after) in enumerate(pairwise(models)):
        patches.append(folder / f"{i}-{i + 1}.patchc")
        patchc.diff(before, after, out=patches[-1], chunk_bits=12, codec=codec)
    return Chain(models, patches)


def with_any_codec(test: Callable[..., None]) -> Callable[..., None]:
    """With the base, patches fold whatever their codec; without it, where they decode alone."""
    cases = [("rice", False), ("rice", True), ("auto", True)]
    return pytest.mark.parametrize(("chain", "with_base"), cases, indirect=["chain"])(test)


def refuse(
    tmp_path: Path, patches: list[Path], error: type[PatchcError], message: str, **options: Any
) -> None:
    before = tree(tmp_path)
    with pytest.raises(error, match=message):
        patchc.fold(patches, out=tmp_path / "refused.patchc", **options)
    assert tree(tmp_path) == before
