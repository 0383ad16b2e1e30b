"""Sweeps of compact components: the trials are those of whole models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compact_inputs import write_component
from fit_inputs import says_ash
from safetensors.torch import load_file

import patchc
from patchc import EvaluateOptions, Recipe
from patchc.errors import MismatchError
from patchc.evaluation.trials import Trial

OPTIONS = EvaluateOptions(judge=says_ash, max_new_tokens=5)
RECIPE = Recipe(retain=0.4, seed=2)


@pytest.fixture(scope="module")
def compact(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("compact")
    paths = {"base": models["base"]}
    for name in ("se", "osm"):
        tuned, scores = (
            {key: value.numpy() for key, value in load_file(models[name] / file).items()}
            for file in ("model.safetensors", "scores.safetensors")
        )
        held = {key: tuned[key] for key in scores}
        paths[name] = write_component(
            folder / name, models["base"], name, held, {"weight": scores}, RECIPE.seed,
            lambda _: RECIPE.retain,
        )  # fmt: skip
    return paths


def trials(models: dict[str, Path], out: Path, **more: Any) -> list[Trial]:
    report = patchc.sweep(**models, out=out, recipe=RECIPE, options=OPTIONS, **more)
    return [replace(trial, seconds=0.0) for trial in (report.base, *report.trials)]


def test_the_trials_are_those_of_whole_models(
    models: dict[str, Path], compact: dict[str, Path], requests: dict[str, Path], tmp_path: Path
) -> None:
    grid = {"alpha": [2, 40], "top_se": [0.1, 0.3], "scope": ["row"]}
    whole = trials(models, tmp_path / "whole.jsonl", grid=grid, **requests)
    assert len(whole) == 5
    assert trials(compact, tmp_path / "compact.jsonl", grid=grid, **requests) == whole


def test_a_grid_of_what_is_held_once_is_refused_before_anything_is_measured(
    compact: dict[str, Path], requests: dict[str, Path], tmp_path: Path
) -> None:
    for grid, why in (
        ({"seed": [2, 3]}, "its seed is 3; set seed to 2"),
        ({"retain": [0.4, 0.2]}, r"its retain is 0\.2 .* set retain to 0\.4"),
        ({"rank_among": ["retained", "all"]}, "every entry is ranked"),
        ({"score": ["delta"]}, "it ranks by delta scores"),
    ):
        with pytest.raises(MismatchError, match=why):
            trials(compact, tmp_path / "x.jsonl", grid=grid, **requests)
    assert not list(tmp_path.iterdir())
