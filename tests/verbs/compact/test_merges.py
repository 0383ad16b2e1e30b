"""DARE merges of compact components give the very files that whole models give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import selection_oracle as oracle
from compact_inputs import write_component
from merge_inputs import FIRST, NORM, SECOND, tuned_models, write_sources

import patchc
from patchc import MergeRecipe
from patchc.recipe import MergeOverride

SHAPES = {FIRST: (40, 515), SECOND: (3, 44_001), NORM: (10,)}


def compact(folder: Path, whole: dict[str, Any], tuned: list[Any], recipe: MergeRecipe) -> Any:
    components = [
        write_component(
            folder / f"compact-{number}", whole["base"], f"model-{number}", model, {}, recipe.seed,
            lambda _: recipe.share,
        )
        for number, model in enumerate(tuned)
    ]  # fmt: skip
    return whole | {"tuned": components}


@pytest.mark.parametrize("seed", [0, 5, 2**40])
@pytest.mark.parametrize("density", [0.3, 0.01, 0.001])
@pytest.mark.parametrize("models", [1, 3])
def test_densities_and_seeds(tmp_path: Path, density: float, seed: int, models: int) -> None:
    base, tuned = tuned_models(SHAPES, models)
    recipe = MergeRecipe("dare", density=density, seed=seed)
    whole = write_sources(tmp_path, base, tuned)
    for name, paths in (("whole", whole), ("compact", compact(tmp_path, whole, tuned, recipe))):
        patchc.build(**paths, out=tmp_path / f"{name}.patchc", recipe=recipe, threads=2)
    first, second = ((tmp_path / f"{name}.patchc").read_bytes() for name in ("whole", "compact"))
    assert first == second


def test_weights_lambda_rescaling_and_tensors_stay_free(tmp_path: Path) -> None:
    base, tuned = tuned_models(SHAPES, 2)
    whole = write_sources(tmp_path, base, tuned)
    paths = compact(tmp_path, whole, tuned, MergeRecipe("dare", density=0.2, seed=3))
    for number, more in enumerate(
        (
            {"weight": (0.5, -2.0), "lambda_": 1.5},
            {"rescale": False, "exclude": ("norm",)},
            {"include": ("layers.1",), "overrides": (MergeOverride("layers", weight=3.0),)},
        )
    ):
        recipe = MergeRecipe("dare", density=0.2, seed=3, **more)  # type: ignore[arg-type]
        files = [tmp_path / f"{number}-{kind}.patchc" for kind in ("whole", "compact")]
        for out, given in zip(files, (whole, paths), strict=True):
            patchc.build(**given, out=out, recipe=recipe)
        assert files[0].read_bytes() == files[1].read_bytes()


def test_what_tuning_left_is_read_from_the_base(tmp_path: Path) -> None:
    """As "margin" derives it: the retained entries of some tensors moved, and nothing else did."""
    base, (moved,) = tuned_models(SHAPES, 1)
    tuned = {name: value.astype(np.float32) for name, value in base.items()}
    mask = oracle.retained("model-0", FIRST, 1, 0.1, 0, base[FIRST].size).reshape(base[FIRST].shape)
    tuned[FIRST] = np.where(mask, moved[FIRST], tuned[FIRST])
    whole = write_sources(tmp_path, base, [tuned])
    component = write_component(
        tmp_path / "margin", whole["base"], "model-0", {FIRST: tuned[FIRST]}, {}, 1, lambda _: 0.1,
        rest_unchanged=True,
    )  # fmt: skip
    recipe = MergeRecipe("dare", density=0.1, seed=1, rescale=False)
    for name, paths in (("whole", whole), ("compact", whole | {"tuned": component})):
        report = patchc.build(**paths, out=tmp_path / f"{name}.patchc", recipe=recipe)
        assert report.entries > 1000
    first, second = ((tmp_path / f"{name}.patchc").read_bytes() for name in ("whole", "compact"))
    assert first == second
