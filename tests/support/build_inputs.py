"""What a build reads, made in memory, and its comparison with the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import selection_oracle as oracle
from numpy.typing import NDArray
from tiny_checkpoints import NUMPY, Tensors, normal, raw, write_model

import patchc
from patchc import Recipe

Arrays = dict[str, NDArray]
LAYER_0 = "model.layers.0.mlp.up_proj.weight"
LAYER_1 = "model.layers.1.mlp.up_proj.weight"
NORM = "model.norm.weight"


@dataclass
class Inputs:
    """Everything that a build reads, in memory; tests change it before it is written."""

    base: dict[str, Any]
    tuned: dict[str, dict[str, Any]] = field(default_factory=lambda: {"se": {}, "osm": {}})
    scores: dict[str, dict[str, Any]] = field(default_factory=lambda: {"se": {}, "osm": {}})
    stem: str = "scores"

    def write(self, folder: Path, shards: Mapping[str, int] | None = None) -> dict[str, Path]:
        """Write base, tuned models and scores; ``shards`` gives the layout of each."""
        layout = {"base": 1, "tuned": 1, "scores": 1} | dict(shards or {})
        paths = {"base": write_model(folder / "base", self.base, layout["base"])}
        for part in ("se", "osm"):
            paths[part] = write_model(folder / part, self.tuned[part], layout["tuned"])
            write_model(folder / part, self.scores[part], layout["scores"], stem=self.stem)
        return paths


def random_inputs(
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str = "BF16",
    tuned_dtype: str = "F32",
    levels: int | None = None,
    seed: int = 0,
    unscored: tuple[str, ...] = (),
) -> Inputs:
    """Random inputs. ``levels`` draws the scores from so few values that most of them tie."""
    rng = np.random.default_rng(seed)
    base = {name: normal(shape, dtype, seed + i) for i, (name, shape) in enumerate(shapes.items())}
    made = Inputs(base)
    for part in ("se", "osm"):
        for name, value in base.items():
            moved = value.astype(np.float32) + rng.normal(scale=2e-3, size=value.shape)
            made.tuned[part][name] = moved.astype(np.float32).astype(NUMPY[tuned_dtype])
            scores = rng.exponential(size=value.shape)
            if levels is not None:
                scores = rng.integers(0, levels, value.shape)
            if name not in unscored:
                made.scores[part][name] = scores.astype(np.float32)
    return made


def small_inputs() -> Inputs:
    shapes = {LAYER_0: (6, 10), LAYER_1: (6, 10), NORM: (10,)}
    return random_inputs(shapes, unscored=(NORM,))


def expected_tensors(inputs: Inputs, recipe: Recipe) -> dict[str, oracle.OracleTensor]:
    parts = tuple(
        oracle.OracleComponent(name, inputs.tuned[name], inputs.scores[name], top)
        for name, top in (("se", recipe.top_se), ("osm", recipe.top_osm))
        if recipe.sets not in ({"se", "osm"} - {name})
    )
    options = oracle.Options(
        recipe.seed,
        {name: getattr(recipe, name) for name in ("retain", "top_se", "top_osm", "alpha", "beta")},
        tuple((override.match, override.values()) for override in recipe.overrides),
        recipe.scope,
        recipe.rank_among,
        recipe.sets,
        recipe.rescale,
        recipe.least_step,
    )
    return oracle.build_model(inputs.base, parts, options)


def words(values: NDArray) -> NDArray:
    return np.ascontiguousarray(values).ravel().view(f"u{values.dtype.itemsize}")


def read_steps(patch: Path, base: Tensors) -> dict[str, dict[int, int]]:
    """Position → step of every changed entry, by tensor, given what the patch applies to."""
    found: dict[str, dict[int, int]] = {}
    with patchc.open_patch(patch) as opened:
        for name, record in opened.index.tensors.items():
            found[name] = {}
            before = np.frombuffer(bytearray(raw(base[name]).data), record.dtype.word)
            for row in record.chunks:
                chunk = opened.index.chunk(row)
                start = chunk.number * opened.chunk_words
                words = before[start : start + opened.chunk_words]
                positions, steps = opened.read_changes(record, chunk, words)
                flat = positions.astype(np.int64) + start
                found[name] |= dict(zip(flat.tolist(), steps.tolist(), strict=True))
    return found


def check_equal(inputs: Inputs, recipe: Recipe, patch: Path) -> int:
    """Compare a patch with the oracle: steps and statistics. Returns the entries changed."""
    expected = expected_tensors(inputs, recipe)
    found = read_steps(patch, inputs.base)
    assert list(found) == sorted(inputs.base, key=str.encode)
    for name, base in inputs.base.items():
        steps = {}
        if name in expected:
            steps = oracle.steps(words(base), words(expected[name].result), True)
        assert found[name] == steps, name
    with patchc.open_patch(patch) as opened:
        statistics = opened.metadata["statistics"]
    assert statistics == {name: _counts(tensor, recipe) for name, tensor in expected.items()}
    return sum(len(steps) for steps in found.values())


def _counts(tensor: oracle.OracleTensor, recipe: Recipe) -> dict[str, int]:
    parts = [recipe.sets] if recipe.sets in ("se", "osm") else ["se", "osm"]
    counts = {part: int(getattr(tensor, part).sum()) for part in parts}
    if len(parts) > 1:
        counts["overlap"] = int((tensor.se & tensor.osm).sum())
    return counts | {f"{part} applied": int(tensor.applied[part].sum()) for part in parts}
