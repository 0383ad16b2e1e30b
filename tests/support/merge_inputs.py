"""Tuned models and recipes for merges, and their comparison with the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiny_checkpoints import NUMPY, Raw, normal, read_model, write_model

import patchc
from patchc import MergeRecipe

Arrays = dict[str, NDArray]
METHODS = ["task-arithmetic", "dare", "ties", "magnitude"]
FIRST, SECOND, NORM = "layers.0.weight", "layers.1.weight", "norm.weight"


def tuned_models(
    shapes: dict[str, tuple[int, ...]],
    count: int = 2,
    dtype: str = "BF16",
    tuned_dtype: str = "F32",
    levels: int | None = None,
    seed: int = 0,
) -> tuple[Arrays, list[Arrays]]:
    """A base and tuned models. ``levels`` gives τ few values, so that they tie and cancel."""
    rng = np.random.default_rng(seed)
    base = {name: normal(shape, dtype, seed + i) for i, (name, shape) in enumerate(shapes.items())}
    if levels is not None:  # small whole numbers: every sum and difference is exact
        base = {
            name: rng.integers(-2, 3, value.shape).astype(np.float32).astype(NUMPY[dtype])
            for name, value in base.items()
        }
    tuned = []
    for _ in range(count):
        model = {}
        for name, value in base.items():
            moved = rng.normal(scale=2e-3, size=value.shape)
            if levels is not None:
                moved = rng.integers(-levels, levels + 1, value.shape).astype(np.float64)
            changed = (value.astype(np.float32) + moved).astype(np.float32)
            model[name] = changed.astype(NUMPY[tuned_dtype])
        tuned.append(model)
    return base, tuned


def small_models() -> tuple[Arrays, list[Arrays]]:
    return tuned_models({FIRST: (6, 10), SECOND: (6, 10), NORM: (10,)})


def write_sources(
    folder: Path, base: Any, tuned: list[Any], shards: tuple[int, int] = (1, 1)
) -> dict[str, Any]:
    return {
        "base": write_model(folder / "base", base, shards[0]),
        "tuned": [
            write_model(folder / f"tuned-{i}", model, shards[1]) for i, model in enumerate(tuned)
        ],
    }


def read_patched(folder: Path) -> dict[str, Raw]:
    return read_model(folder / "patched")


def merge_one(
    folder: Path, base: list[float], tuned: list[list[float]], recipe: MergeRecipe
) -> list[float]:
    """Merge models of one fp32 tensor, and give the patched values."""
    models = [{"w": np.array(values, np.float32)} for values in (base, *tuned)]
    paths = write_sources(folder, models[0], models[1:])
    patchc.build(**paths, out=folder / "m.patchc", recipe=recipe)
    patchc.apply(folder / "m.patchc", paths["base"], out=folder / "patched")
    return list(np.frombuffer(read_patched(folder)["w"].data, np.float32).tolist())
