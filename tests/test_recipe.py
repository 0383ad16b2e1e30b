"""Recipes: from files, validated, and round trips through JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import patchc
from patchc import Recipe
from patchc.errors import UsageError
from patchc.recipe import Override


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
        ('scope = "layer"', "scope is 'layer'.*tensor, row, global"),
        ("scope = [1]", "scope"),
        ('rank_among = "some"', "rank_among"),
        ('score = "magnitude"', "score"),
        ('sets = "xor"', "sets"),
        ("rescale = 1", "rescale"),
        ("least_step = 0", "least_step"),
        ("least_step = 1.5", "least_step"),
        ("overrides = 3", "overrides"),
        ("overrides = [3]", "table with a match"),
        ("[[overrides]]\nalpha = 1", "table with a match"),
        ("[[overrides]]\nmatch = 1\nalpha = 1", "match is 1"),
        ('[[overrides]]\nmatch = "("\nalpha = 1', "not a regular expression"),
        ('[[overrides]]\nmatch = "a"', "changes nothing"),
        ('[[overrides]]\nmatch = "a"\nseed = 1', "unknown key 'seed'"),
        ('[[overrides]]\nmatch = "a"\nretain = 2', "retain"),
        ('[[overrides]]\nmatch = "a"\nbeta = "x"', "beta"),
        ('scope = "global"\n[[overrides]]\nmatch = "a"\ntop_se = 0.1', "global scope"),
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


FULL = Recipe(
    retain=0.5,
    top_se=0.02,
    alpha=3,
    seed=7,
    scope="row",
    rank_among="all",
    score="base-delta",
    sets="union",
    rescale=True,
    exclude=("norm",),
    overrides=(Override("mlp", alpha=2, retain=1), Override(r"layers\.0\.", top_osm=0.3)),
)
YAML = r"""
retain: 0.5
top_se: 0.02
alpha: 3
seed: 7
scope: row
rank_among: all
score: base-delta
sets: union
rescale: true
exclude: [norm]
overrides:
  - {match: mlp, alpha: 2, retain: 1}
  - match: 'layers\.0\.'
    top_osm: 0.3
"""
TOML = r"""
method = "safepatching"
retain = 0.5
top_se = 0.02
alpha = 3
seed = 7
scope = "row"
rank_among = "all"
score = "base-delta"
sets = "union"
rescale = true
exclude = ["norm"]
[[overrides]]
match = "mlp"
alpha = 2
retain = 1
[[overrides]]
match = 'layers\.0\.'
top_osm = 0.3
"""


@pytest.mark.parametrize(("suffix", "text"), [("yaml", YAML), ("yml", YAML), ("toml", TOML)])
def test_every_key_in_both_languages(tmp_path: Path, suffix: str, text: str) -> None:
    path = tmp_path / f"recipe.{suffix}"
    path.write_text(text)
    assert patchc.read_recipe(path) == FULL
    path.with_suffix(".yaml").write_text(json.dumps(FULL.to_json()))
    assert patchc.read_recipe(path.with_suffix(".yaml")) == FULL


@pytest.mark.parametrize(
    "text",
    ["a: [", "- 1", "3", "", "1: 2", "? [a]\n: 3", "x: !!python/object:os.system {}", "a: &a [*b]"],
)
def test_bad_yaml(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"recipe\.yaml"):
        patchc.read_recipe(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alpha: 1\nbeta: 2\nalpha: 3", "'alpha' is given twice(.|\n)*line 3"),
        ("overrides:\n- {match: a, alpha: 1, 'alpha': 2}", "'alpha' is given twice"),
        ("alpha: 1e1", r"alpha is the text '1e1'.*1\.0e\+1 for a number"),
    ],
)
def test_what_yaml_reads_otherwise_than_it_looks(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        patchc.read_recipe(path)
    path.write_text("alpha: 1.0e+1\noverrides: [{match: a, alpha: 1}, {match: b, alpha: 1}]")
    assert patchc.read_recipe(path).to_json()["alpha"] == 10


def test_another_methods_recipe_is_refused() -> None:
    with pytest.raises(UsageError, match="method is 'ties'; it must be one of safepatching"):
        Recipe.from_json({"method": "ties"})


def test_the_later_override_wins() -> None:
    changed = FULL.for_tensor("model.layers.0.mlp.up_proj.weight")
    assert (changed.alpha, changed.retain, changed.top_osm) == (2.0, 1.0, 0.3)
    assert changed.top_se == FULL.top_se
    assert FULL.for_tensor("model.layers.1.self_attn.q_proj.weight").to_json() == {
        **FULL.to_json(),
    }
