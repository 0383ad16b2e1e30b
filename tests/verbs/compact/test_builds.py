"""Builds from compact components give the very files that whole models give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from build_inputs import LAYER_0, LAYER_1, NORM, Inputs, check_equal, random_inputs
from compact_inputs import write_components
from tiny_checkpoints import write_file

import patchc
from patchc import Recipe
from patchc.recipe import Override
from patchc.recipe.safepatching import SCOPES, SCORES, SET_OPERATIONS, Score

SHAPES = {LAYER_0: (40, 515), LAYER_1: (3, 44_001), NORM: (10,)}


def both(folder: Path, inputs: Inputs, recipe: Recipe, **more: Any) -> bytes:
    """Build from whole models and from compact components; the same file, which is returned."""
    inputs.stem = "scores" if recipe.score == "weight" else f"scores-{recipe.score}"
    whole = inputs.write(folder / "whole")
    compact = write_components(
        folder / "compact",
        inputs,
        recipe.seed,
        lambda name: recipe.for_tensor(name).retain,
        recipe.score,
    )
    patches = []
    for name, paths in (("whole", whole), ("compact", compact)):
        out = folder / f"{name}.patchc"
        patchc.build(**paths, out=out, recipe=recipe, **more)
        patches.append(out.read_bytes())
    assert patches[0] == patches[1]
    return patches[0]


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
@pytest.mark.parametrize("retain", [0.3, 0.01, 0.001])
def test_shares_and_seeds(tmp_path: Path, retain: float, seed: int) -> None:
    inputs = random_inputs(SHAPES, seed=3, unscored=(NORM,))
    recipe = Recipe(retain=retain, top_se=0.8 * retain, top_osm=0.7 * retain, seed=seed)
    both(tmp_path, inputs, recipe)
    assert check_equal(inputs, recipe, tmp_path / "compact.patchc") > 0


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("sets", SET_OPERATIONS)
def test_sets_and_scopes(tmp_path: Path, sets: Any, scope: Any) -> None:
    inputs = random_inputs(SHAPES, levels=5, seed=3, unscored=(NORM,))
    recipe = Recipe(
        retain=0.1, top_se=0.05, top_osm=0.06, seed=7, sets=sets, scope=scope, alpha=3, beta=-2
    )
    both(tmp_path, inputs, recipe, threads=3)
    assert check_equal(inputs, recipe, tmp_path / "compact.patchc") > 0


@pytest.mark.parametrize("more", [{}, {"value_type": "int8"}])
def test_additive_values(tmp_path: Path, more: dict[str, Any]) -> None:
    inputs = random_inputs(SHAPES, seed=5, unscored=(NORM,))
    both(tmp_path, inputs, Recipe(retain=0.2, seed=4), values="additive", **more)


@pytest.mark.parametrize("score", SCORES)
def test_kinds_of_scores(tmp_path: Path, score: Score) -> None:
    inputs = random_inputs(SHAPES, seed=5, unscored=(NORM,))
    both(tmp_path, inputs, Recipe(retain=0.2, score=score))


@pytest.mark.parametrize("chunk_bits", [12, 15, 18, 20])
def test_sizes_of_chunks(tmp_path: Path, chunk_bits: int) -> None:
    inputs = random_inputs({LAYER_0: (7, 60_001)}, levels=3, seed=5)
    both(tmp_path, inputs, Recipe(retain=0.2, scope="row"), chunk_bits=chunk_bits)


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_dtypes_of_the_base(tmp_path: Path, dtype: str) -> None:
    both(tmp_path, random_inputs(SHAPES, dtype, seed=5, unscored=(NORM,)), Recipe(seed=2))


def test_an_override_of_p_and_what_is_left_out(tmp_path: Path) -> None:
    inputs = random_inputs(SHAPES, seed=5, unscored=(NORM,))
    overrides = (
        Override("layers.0", retain=0.5),
        Override("layers.1", retain=0.01, alpha=2),
    )
    both(tmp_path, inputs, Recipe(retain=0.3, overrides=overrides))
    for place, changes in (("all", {"retain": 1.0}), ("none", {"retain": 0.0})):
        both(tmp_path / place, inputs, Recipe(overrides=(Override("layers.0", **changes),)))


def test_scales_sets_scope_and_tensors_stay_free(tmp_path: Path) -> None:
    """One component for every recipe with its p and seed."""
    inputs = random_inputs(SHAPES, seed=5, unscored=(NORM,))
    whole = inputs.write(tmp_path / "whole")
    compact = write_components(tmp_path, inputs, 9, lambda _: 0.2)
    for number, recipe in enumerate(
        (
            Recipe(seed=9, alpha=1, beta=7, top_se=0.01, rescale=True),
            Recipe(seed=9, scope="global", sets="union", least_step=2),
            Recipe(seed=9, sets="se", exclude=("layers.1",)),
            Recipe(seed=9, include=("layers.1",), overrides=(Override("layers", beta=1.0),)),
        )
    ):
        first, second = (tmp_path / f"{number}-{kind}.patchc" for kind in ("whole", "compact"))
        patchc.build(**whole, out=first, recipe=recipe)
        patchc.build(**compact, out=second, recipe=recipe)
        assert first.read_bytes() == second.read_bytes()


def test_one_component_compact_and_one_whole(tmp_path: Path) -> None:
    inputs = random_inputs(SHAPES, seed=5, unscored=(NORM,))
    whole = inputs.write(tmp_path / "whole")
    compact = write_components(tmp_path, inputs, 0, lambda _: 0.2)
    mixed = whole | {"se": compact["se"]}
    own = write_file(tmp_path / "own.safetensors", inputs.scores["osm"])
    for name, paths in (("one", whole), ("two", mixed), ("three", mixed | {"osm_scores": own})):
        patchc.build(**paths, out=tmp_path / f"{name}.patchc")
    patches = {(tmp_path / f"{name}.patchc").read_bytes() for name in ("one", "two", "three")}
    assert len(patches) == 1


def test_the_plan_counts_what_is_read(tmp_path: Path) -> None:
    inputs = random_inputs({LAYER_0: (100, 1000)}, seed=5)
    plans = [
        patchc.build(**paths, out=tmp_path / "x.patchc", dry_run=True).plan
        for paths in (
            inputs.write(tmp_path / "whole"),
            write_components(tmp_path, inputs, 0, lambda _: 0.2),
        )
    ]
    base = (tmp_path / "base/model.safetensors").stat().st_size
    assert plans[0].read_bytes == base + 4 * 4 * 100_000
    assert plans[1].read_bytes == pytest.approx(base + 0.2 * 4 * 4 * 100_000, rel=0.02)


def test_rules_leave_compact_components_alone(tmp_path: Path) -> None:
    """The whole OSM model swaps the names of two layers; the compact SE has the base's names."""
    inputs, recipe = random_inputs(SHAPES | {LAYER_1: SHAPES[LAYER_0]}, seed=3), Recipe()
    compact = write_components(
        tmp_path / "compact", inputs, recipe.seed, lambda _: recipe.retain, recipe.score
    )
    swapped = {LAYER_0: LAYER_1, LAYER_1: LAYER_0, NORM: NORM}
    for kind in (inputs.tuned, inputs.scores):
        kind["osm"] = {swapped[name]: value for name, value in kind["osm"].items()}
    paths = inputs.write(tmp_path / "whole") | {"se": compact["se"]}
    for kind in (inputs.tuned, inputs.scores):
        kind["osm"] = {swapped[name]: value for name, value in kind["osm"].items()}
    rules = [r"layers\.0=layers.x", r"layers\.1=layers.0", r"layers\.x=layers.1"]
    patchc.build(**paths, out=tmp_path / "p.patchc", recipe=recipe, rename=rules)
    assert check_equal(inputs, recipe, tmp_path / "p.patchc") > 0
