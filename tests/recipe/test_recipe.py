"""Recipes: from files, validated, and round trips through JSON and TOML."""

from __future__ import annotations

import json
import re
import tempfile
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import patchc
from patchc import MergeRecipe, Recipe
from patchc.errors import OutputError, UsageError
from patchc.recipe import (
    METHODS,
    MergeOverride,
    Override,
    exact_match,
    find_recipe,
    recipe_text,
    write_recipe,
)
from patchc.recipe.safepatching import RANKED_AMONG, SCORES, SET_OPERATIONS


def test_a_recipe_file_is_read(tmp_path: Path) -> None:
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
def test_a_bad_recipe_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as raised:
        patchc.read_recipe(path)
    assert str(path) in str(raised.value)


def test_recipe_file_missing_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        patchc.read_recipe(tmp_path / "recipe.toml")
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8 text; save the file as UTF-8"):
        patchc.read_recipe(tmp_path / "recipe.toml")


@pytest.mark.parametrize(("suffix", "text"), [("toml", "alpha = 2.0"), ("yaml", "alpha: 2.0")])
def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path: Path, suffix: str, text: str) -> None:
    path = tmp_path / f"recipe.{suffix}"
    path.write_text(text, encoding="utf-8-sig")
    assert patchc.read_recipe(path).alpha == 2.0


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
def test_bad_yaml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"recipe\.yaml"):
        patchc.read_recipe(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alpha: 1\nbeta: 2\nalpha: 3", "line 3, column 1: the key 'alpha' is given twice"),
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


def test_scales_of_overrides_have_any_sign(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[[overrides]]\nmatch = "a"\nalpha = -2\nbeta = -0.5\n')
    recipe = patchc.read_recipe(path)
    assert recipe == Recipe(overrides=(Override("a", alpha=-2, beta=-0.5),))
    changed = recipe.for_tensor("a")
    assert isinstance(changed, Recipe)
    assert (changed.alpha, changed.beta) == (-2.0, -0.5)


def test_hundreds_of_overrides_each_have_their_tensor() -> None:
    """More than the 512 expressions that Python's re module remembers."""
    names = [f"model.layers.{i}.weight" for i in range(560)]
    overrides = tuple(Override(exact_match(name), alpha=i) for i, name in enumerate(names))
    recipe = Recipe(overrides=overrides)
    for _ in range(2):
        assert [recipe.for_tensor(name).alpha for name in names] == list(range(560))
    assert recipe.for_tensor("model.layers.560.weight").alpha == recipe.alpha
    assert recipe == Recipe(overrides=overrides)
    assert hash(recipe) == hash(Recipe(overrides=overrides))
    changed = recipe.with_changes(overrides=overrides[:1], alpha=7)
    assert [changed.for_tensor(name).alpha for name in names[:2]] == [0, 7]


# As TOML files ---------------------------------------------------------------------------------

SHARES = st.floats(0, 1)
SCALES = st.floats(-3.4e38, 3.4e38)
FACTORS = st.floats(0, 3.4e38)
TEXTS = st.text()
MATCHES = TEXTS.map(exact_match) | st.sampled_from([r"\.mlp\.", "layers", "'", "(?i)\\w\x7f\n"])


@st.composite
def overrides_of(draw: st.DrawFn, kind: Any, values: dict[str, st.SearchStrategy[Any]]) -> Any:
    names = draw(st.sets(st.sampled_from(sorted(values)), min_size=1))
    return kind(draw(MATCHES), **{name: draw(values[name]) for name in sorted(names)})


SAFEPATCHING = st.builds(
    Recipe,
    retain=SHARES,
    top_se=SHARES,
    top_osm=SHARES,
    alpha=SCALES,
    beta=SCALES,
    seed=st.integers(0, 2**64 - 1),
    scope=st.sampled_from(["tensor", "row"]),
    rank_among=st.sampled_from(RANKED_AMONG),
    score=st.sampled_from(SCORES),
    sets=st.sampled_from(SET_OPERATIONS),
    rescale=st.booleans(),
    least_step=st.integers(1, 2**31 - 1),
    include=st.lists(MATCHES, max_size=2),
    exclude=st.lists(MATCHES, max_size=2),
    overrides=st.lists(
        overrides_of(
            Override,
            {
                "retain": SHARES,
                "top_se": SHARES,
                "top_osm": SHARES,
                "alpha": SCALES,
                "beta": SCALES,
            },
        ),
        max_size=3,
    ),
)


@st.composite
def merge_recipes(draw: st.DrawFn) -> MergeRecipe:
    method = draw(st.sampled_from(METHODS[1:]))
    factor = FACTORS if method == "ties" else SCALES
    weight = factor | st.lists(factor, min_size=1, max_size=3)
    own: dict[str, Any] = {
        "dare": {"density": SHARES, "seed": st.integers(0, 2**64 - 1), "rescale": st.booleans()},
        "task-arithmetic": {},
    }.get(method, {"density": SHARES, "scope": st.sampled_from(["tensor", "global"])})
    common = {
        "weight": weight,
        "lambda_": SCALES,
        "include": st.lists(MATCHES, max_size=2),
        "exclude": st.lists(MATCHES, max_size=2),
        "overrides": st.lists(
            overrides_of(MergeOverride, {"weight": weight, "lambda_": SCALES}), max_size=3
        ),
    }
    words = draw(st.fixed_dictionaries({}, optional=own | common))
    return MergeRecipe(method, **words)


@given(recipe=SAFEPATCHING | merge_recipes())
@example(recipe=FULL)
@example(recipe=Recipe(alpha=-0.0, beta=5e-324, include=("\x00\x7f\u2028\U0001f9ea\r\n'\"\\\\",)))
def test_the_text_of_a_recipe_is_read_back_as_it_was(recipe: Recipe | MergeRecipe) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.toml"
        path.write_text(recipe_text(recipe), encoding="utf-8")
        found = patchc.read_recipe(path)
    assert found == recipe
    assert repr(found) == repr(recipe)  # where zeros of both signs would be equal


def test_a_recipe_is_written_as_this_text() -> None:
    recipe = Recipe(
        top_se=0.02,
        rescale=True,
        exclude=("norm", r"\.0\."),
        overrides=(Override(exact_match("a.b"), alpha=-1 / 3), Override("it's", beta=1e-7)),
    )
    assert (
        recipe_text(recipe)
        == r"""method = "safepatching"
top_se = 0.02
alpha = 5.0
beta = 4.5
rescale = true
exclude = ["norm", '\.0\.']

[[overrides]]
match = '^a\.b$'
alpha = -0.3333333333333333

[[overrides]]
match = "it's"
beta = 1e-07
"""
    )
    merge = MergeRecipe(
        "dare", rescale=False, overrides=(MergeOverride("a", weight=(1, 2), lambda_=0.5),)
    )
    assert (
        recipe_text(merge)
        == """method = "dare"
weight = 1.0
rescale = false

[[overrides]]
match = "a"
weight = [1.0, 2.0]
lambda = 0.5
"""
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_text_of_defaults_has_the_method_and_its_scales(method: str) -> None:
    content = tomllib.loads(recipe_text(find_recipe(method)))
    scales = {"alpha": 5.0, "beta": 4.5} if method == "safepatching" else {"weight": 1.0}
    assert content == {"method": method} | scales


def test_a_recipe_is_not_written_over_a_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "recipe.toml"
    write_recipe(FULL, path)
    assert patchc.read_recipe(path) == FULL
    before = path.read_bytes()
    with pytest.raises(OutputError, match="already exists"):
        write_recipe(Recipe(alpha=1), path)
    assert path.read_bytes() == before
    with pytest.raises(OutputError, match="is a folder"):
        write_recipe(Recipe(), Path(tempfile.mkdtemp(dir=path.parent)))
    with pytest.raises(UsageError, match=r"TOML.*ends in \.toml"):
        write_recipe(Recipe(), path.with_suffix(".yaml"))
    with pytest.raises(UsageError, match="surrogate"):
        write_recipe(Recipe(include=("\ud800",)), path.with_name("half.toml"))
    assert [one.name for one in path.parent.iterdir() if one.is_file()] == [path.name]


@given(name=st.text(st.characters(exclude_categories=["C", "Zl", "Zp"])), other=st.text())
@example(name="a.b", other="axb")
@example(name="a.b", other="a.b.c")
@example(name="a.b", other="0.a.b")
def test_an_exact_match_is_for_one_name(name: str, other: str) -> None:
    assert re.search(exact_match(name), name)
    if other not in (name, f"{name}\n"):  # no tensor's name has a line break
        assert not re.search(exact_match(name), other)
