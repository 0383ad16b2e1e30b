"""Recipes: from files, validated, and round trips through JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import patchc
from patchc import Recipe
from patchc.errors import UsageError


def test_recipe_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(
        'retain = 1\ntop_se = 0.25\nseed = 18446744073709551615\ninclude = ["a", "b"]\n'
    )
    expected = Recipe(retain=1.0, top_se=0.25, seed=2**64 - 1, include=("a", "b"))
    assert patchc.read_recipe(path) == expected
    assert Recipe.from_json(json.loads(json.dumps(expected.to_json()))) == expected
    changed = expected.with_changes(beta=2, alpha=None)
    assert changed == replace(expected, beta=2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retian = 0.3", "unknown key 'retian'"),
        ("[build]\nretain = 0.3", "unknown key 'build'"),
        ("retain = ", "not valid TOML"),
        ('retain = "0.3"', "retain"),
        ("retain = true", "retain"),
        ("retain = -0.01", "between 0 and 1"),
        ("retain = 1.01", "between 0 and 1"),
        ("retain = nan", "between 0 and 1"),
        ("top_se = 2", "top_se"),
        ("top_osm = [0.1]", "top_osm"),
        ("alpha = inf", "alpha"),
        ("alpha = nan", "alpha"),
        ("beta = 1e39", "beta"),
        ("alpha = 1" + 400 * "0", "alpha"),
        ("seed = -1", "seed"),
        ("seed = 18446744073709551616", "seed"),
        ("seed = 1.0", "seed"),
        ("seed = true", "seed"),
        ('include = "layers"', "include"),
        ("include = [1]", "include"),
        ("exclude = 3", "exclude"),
    ],
)
def test_bad_recipe_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as raised:
        patchc.read_recipe(path)
    assert str(path) in str(raised.value)


def test_recipe_file_missing_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        patchc.read_recipe(tmp_path / "recipe.toml")
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not valid TOML"):
        patchc.read_recipe(tmp_path / "recipe.toml")
