"""Recipes of merges: defaults, overrides, files and their refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from merge_inputs import (
    FIRST,
    METHODS,
    NORM,
    SECOND,
    small_models,
    write_sources,
)

import patchc
from patchc import MergeRecipe, Recipe
from patchc.errors import (
    UsageError,
)
from patchc.recipe import MergeOverride


def test_defaults_and_round_trip() -> None:
    shares = {method: MergeRecipe(method).density for method in METHODS}
    assert shares == {"task-arithmetic": 1.0, "dare": 0.5, "ties": 0.2, "magnitude": 0.2}
    assert MergeRecipe("dare").rescale is True
    assert MergeRecipe("ties").rescale is False
    recipe = MergeRecipe("ties", weight=[1, 2], lambda_=0.5, scope="global", include=["a"])
    assert recipe.weights(2) == (1.0, 2.0)
    assert recipe.to_json()["lambda"] == 0.5
    assert MergeRecipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert MergeRecipe("ties", weight=[3]).weights(4) == (3.0,) * 4


def test_provenance_without_overrides_has_no_key_for_them() -> None:
    assert MergeRecipe("ties", weight=(1, 2)).to_json() == {
        "method": "ties",
        "density": 0.2,
        "weight": [1.0, 2.0],
        "lambda": 1.0,
        "seed": 0,
        "scope": "tensor",
        "rescale": False,
        "include": [],
        "exclude": [],
    }


def test_overrides_round_trip_and_the_later_one_wins() -> None:
    tables = [
        {"match": "layers", "weight": [1, -2], "lambda": -0.5},
        {"match": r"\.0\.", "weight": [3]},
        {"match": r"\.1\.", "lambda": 0},
    ]
    recipe = MergeRecipe.from_json({"method": "dare", "overrides": tables})
    assert recipe.overrides == (
        MergeOverride("layers", (1.0, -2.0), -0.5),
        MergeOverride(r"\.0\.", 3.0),
        MergeOverride(r"\.1\.", None, 0.0),
    )
    assert MergeRecipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    first, second = recipe.for_tensor(FIRST), recipe.for_tensor(SECOND)
    assert (first.weight, first.lambda_) == (3.0, -0.5)
    assert (second.weight, second.lambda_) == ((1.0, -2.0), 0.0)
    assert recipe.for_tensor(NORM).to_json() == recipe.to_json()
    assert hash(recipe) == hash(MergeRecipe.from_json(recipe.to_json()))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((MergeOverride("layers", lambda_=2), MergeOverride("layer_", weight=2)), "'layer_'.*none"),
        ((MergeOverride("layers", weight=(1, 2, 3)),), "'layers': there are 3 weights for 2"),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_overrides_that_do_not_fit_the_models(
    tmp_path: Path, overrides: tuple[MergeOverride, ...], message: str, dry_run: bool
) -> None:
    paths = write_sources(tmp_path, *small_models())
    recipe = MergeRecipe("dare", overrides=overrides)
    with pytest.raises(UsageError, match=message):
        patchc.build(**paths, out=tmp_path / "m.patchc", recipe=recipe, dry_run=dry_run)
    assert not (tmp_path / "m.patchc").exists()


def test_an_override_is_not_for_tensors_that_take_no_part(tmp_path: Path) -> None:
    paths = write_sources(tmp_path, *small_models())
    recipe = MergeRecipe("dare", exclude=("norm",), overrides=(MergeOverride("norm", weight=2),))
    with pytest.raises(UsageError, match="'norm' matches none of the 2 tensors"):
        patchc.build(**paths, out=tmp_path / "m.patchc", recipe=recipe)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "method is missing"),
        ({"method": "slerp"}, "method is 'slerp'"),
        ({"method": ["ties"]}, "method is"),
        ({"method": "ties", "denstiy": 0.2}, "unknown key 'denstiy'"),
        ({"method": "ties", "lambda_": 1}, "unknown key 'lambda_'"),
        ({"method": "ties", "density": 1.01}, "density is 1.01"),
        ({"method": "ties", "density": "0.2"}, "density"),
        ({"method": "ties", "density": True}, "density"),
        ({"method": "ties", "density": float("nan")}, "density"),
        ({"method": "ties", "weight": []}, "weight is empty"),
        ({"method": "ties", "weight": "11"}, "weight"),
        ({"method": "ties", "weight": [1, None]}, "weight"),
        ({"method": "ties", "weight": float("inf")}, "weight"),
        ({"method": "ties", "weight": {"a": 1}}, "weight"),
        ({"method": "ties", "weight": [1, -1]}, "none may be negative"),
        ({"method": "ties", "lambda": 1e39}, "lambda is"),
        ({"method": "ties", "seed": 1}, "ties has no seed"),
        ({"method": "dare", "seed": 2**64}, "seed"),
        ({"method": "dare", "seed": 1.0}, "seed"),
        ({"method": "dare", "rescale": 1}, "rescale is 1"),
        ({"method": "ties", "rescale": True}, "ties has no rescale"),
        ({"method": "dare", "scope": "global"}, "dare has no scope"),
        ({"method": "ties", "scope": "row"}, "scope is 'row'"),
        ({"method": "task-arithmetic", "density": 0.5}, "has no density"),
        ({"method": "ties", "include": "layers"}, "include"),
        ({"method": "ties", "exclude": [1]}, "exclude"),
        ({"method": "ties", "overrides": 3}, "overrides is 3"),
        ({"method": "ties", "overrides": [{"weight": 1}]}, "table with a match"),
        ({"method": "ties", "overrides": [{"match": "("}]}, "not a regular expression"),
        ({"method": "ties", "overrides": [{"match": "a{9999999999}"}]}, "not a regular expression"),
        ({"method": "ties", "overrides": [{"match": "a"}]}, "changes nothing"),
        ({"method": "ties", "overrides": [{"match": "a", "alpha": 1}]}, "unknown key 'alpha'"),
        ({"method": "ties", "overrides": [{"match": "a", "lambda_": 1}]}, "unknown key 'lambda_'"),
        ({"method": "ties", "overrides": [{"match": "a", "weight": []}]}, "weight is empty"),
        ({"method": "ties", "overrides": [{"match": "a", "weight": "1"}]}, "weight"),
        ({"method": "ties", "overrides": [{"match": "a", "weight": -1}]}, "none may be negative"),
        ({"method": "ties", "overrides": [{"match": "a", "weight": [1, -1]}]}, "may be negative"),
        ({"method": "ties", "overrides": [{"match": "a", "lambda": 1e39}]}, "lambda is"),
    ],
)
def test_a_bad_recipe_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MergeRecipe.from_json(content)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.toml", 'method = "ties"\nweight = [1, 3]\nlambda = 0.5\nscope = "global"\n'),
        ("r.yaml", "method: ties\nweight: [1, 3]\nlambda: 0.5\nscope: global\n"),
    ],
)
def test_a_recipe_file_is_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    expected = MergeRecipe("ties", weight=(1.0, 3.0), lambda_=0.5, scope="global")
    assert patchc.read_recipe(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('method = "slerp"', "method is 'slerp'"),
        ("method = 3", "method is 3"),
        ('method = "ties"\nalpha = 2', "unknown key 'alpha'"),
        ('method = "safepatching"\ndensity = 0.2', "unknown key 'density'"),
        ("density = 0.2", "unknown key 'density'"),
    ],
)
def test_a_bad_recipe_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        patchc.read_recipe(tmp_path / "r.toml")


def test_inputs_of_another_method_are_refused(tmp_path: Path) -> None:
    paths = write_sources(tmp_path, *small_models())
    out = tmp_path / "m.patchc"
    with pytest.raises(UsageError, match="osm is given, and ties takes tuned"):
        patchc.build(**paths, osm=paths["base"], out=out, recipe=MergeRecipe("ties"))
    for recipe in (None, Recipe()):
        with pytest.raises(UsageError, match="tuned is given, and safepatching takes se and osm"):
            patchc.build(**paths, out=out, recipe=recipe)


def test_a_value_type_is_refused(tmp_path: Path) -> None:
    paths = write_sources(tmp_path, *small_models())
    with pytest.raises(UsageError, match="value_type is for additive values"):
        patchc.build(
            **paths, out=tmp_path / "x.patchc", recipe=MergeRecipe("ties"), value_type="bf16"
        )
