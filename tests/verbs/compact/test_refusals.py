"""Recipes that need what a component does not hold, and commands that want a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from build_inputs import LAYER_0, LAYER_1, NORM, random_inputs
from command_line import run
from compact_inputs import write_component, write_components
from merge_inputs import FIRST, SECOND, tuned_models, write_sources
from tiny_checkpoints import write_model

import patchc
from patchc import MergeRecipe, Recipe
from patchc.errors import MismatchError, PatchcError, UnsupportedInputError, UsageError
from patchc.recipe import Override

HELD = r"holds the entries that se retains with p = 0\.2 and seed 3, and no others"


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Components of p 0.2 and seed 3, with scores of the weight."""
    inputs = random_inputs({LAYER_0: (6, 50), LAYER_1: (6, 50), NORM: (10,)}, unscored=(NORM,))
    return write_components(tmp_path_factory.mktemp("held"), inputs, 3, lambda _: 0.2)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"retain": 0.1}, r"its retain is 0\.1 for tensor .*, of which 0\.2 is held; set retain"),
        (
            {"overrides": (Override("layers.1", retain=0.5),)},
            rf"its retain is 0\.5 for tensor '{LAYER_1}'.* set retain to 0\.2, or derive it again",
        ),
        ({"seed": 4}, "its seed is 4; set seed to 3, or derive it again with --for this recipe"),
        (
            {"rank_among": "all"},
            "its rank_among is 'all', so every entry is ranked; set rank_among to 'retained', or "
            r"derive whole models \(without --for and --retain",
        ),
        (
            {"score": "delta"},
            "it ranks by delta scores, and there are weight; set score to 'weight', or derive",
        ),
    ],
)
def test_another_recipe_is_refused_by_name(
    paths: dict[str, Path], tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    recipe = Recipe(**{"retain": 0.2, "seed": 3} | changes)
    with pytest.raises(MismatchError, match=f"{paths['se']}: .*{HELD}. As to the recipe, {why}"):
        patchc.build(**paths, out=tmp_path / "x.patchc", recipe=recipe)
    assert not list(tmp_path.iterdir())


def test_p_of_tensors_that_take_no_part_does_not_matter(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    recipe = Recipe(
        retain=0.2, seed=3, exclude=("layers.1",), overrides=(Override("layers.[1]", retain=1.0),)
    )
    with pytest.raises(UsageError, match="matches none of the 1 tensors that take part"):
        patchc.build(**paths, out=tmp_path / "x.patchc", recipe=recipe)


def test_components_in_each_other_s_place(paths: dict[str, Path], tmp_path: Path) -> None:
    swapped = paths | {"se": paths["osm"], "osm": paths["se"]}
    with pytest.raises(MismatchError, match=r"the entries that osm retains.* se component retains"):
        patchc.build(**swapped, out=tmp_path / "x.patchc", recipe=Recipe(retain=0.2, seed=3))


def test_scores_beside_a_component_are_refused(paths: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--se-scores is given, and .* has scores of its own"):
        patchc.build(
            **paths, se_scores=paths["osm"], out=tmp_path / "x.patchc",
            recipe=Recipe(retain=0.2, seed=3),
        )  # fmt: skip


def test_another_base_is_refused(paths: dict[str, Path], tmp_path: Path) -> None:
    other = random_inputs({LAYER_0: (6, 50), LAYER_1: (6, 50), NORM: (10,)}).base
    other[LAYER_1] = other[LAYER_1].copy()
    other[LAYER_1].flat[17] += 1
    base = write_model(tmp_path / "other", other)
    with pytest.raises(MismatchError, match=f"derived from another base than {base}"):
        patchc.build(
            **paths | {"base": base}, out=tmp_path / "x.patchc", recipe=Recipe(retain=0.2, seed=3)
        )


@pytest.fixture(scope="module")
def merge(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A whole model, and a compact one of two of its three tensors, drawn as the second of two."""
    folder = tmp_path_factory.mktemp("merge")
    base, tuned = tuned_models({FIRST: (6, 50), SECOND: (6, 50), "norm.weight": (10,)}, 2)
    sources = write_sources(folder, base, tuned)
    held = {name: tuned[1][name] for name in (FIRST, SECOND)}
    second = write_component(
        folder / "second", sources["base"], "model-1", held, {}, 3, lambda _: 0.2
    )
    return {"base": sources["base"], "tuned": [sources["tuned"][0], second]}


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        (
            MergeRecipe("ties", density=0.2),
            "ties looks at every entry; take dare, or derive",
        ),
        (MergeRecipe("magnitude", density=0.2), "magnitude looks at every entry"),
        (MergeRecipe("task-arithmetic"), "task-arithmetic looks at every entry; .* --whole"),
        (MergeRecipe("dare", density=0.3, seed=3), r"its density is 0\.3 .* set density to 0\.2"),
        (MergeRecipe("dare", density=0.2, seed=1), "its seed is 1; set seed to 3"),
        (
            MergeRecipe("dare", density=0.2, seed=3),
            "tensor 'norm.weight' takes part, of which nothing is held; exclude it, or derive",
        ),
    ],
)
def test_another_merge_is_refused_by_name(
    merge: dict[str, Any], tmp_path: Path, recipe: MergeRecipe, why: str
) -> None:
    held = r"second: .* that model-1 retains with p = 0\.2 and seed 3.* As to the recipe, "
    with pytest.raises(MismatchError, match=held + why):
        patchc.build(**merge, out=tmp_path / "x.patchc", recipe=recipe)
    assert not list(tmp_path.iterdir())


def test_models_in_another_order(merge: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="model-0 of a DARE merge retains others; name it as"):
        patchc.build(
            merge["base"], tuned=merge["tuned"][::-1], out=tmp_path / "x.patchc",
            recipe=MergeRecipe("dare", density=0.2, seed=3, exclude=("norm",)),
        )  # fmt: skip


def test_a_component_of_the_other_method(
    merge: dict[str, Any], paths: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(MismatchError, match="se component retains others; name it as --tuned numb"):
        patchc.build(
            merge["base"], se=merge["tuned"][1], out=tmp_path / "x.patchc",
            recipe=Recipe(sets="se", retain=0.2, seed=3),
        )  # fmt: skip
    with pytest.raises(MismatchError, match="model-0 of a DARE merge retains others; name it"):
        patchc.build(
            paths["base"], tuned=paths["se"], out=tmp_path / "x.patchc",
            recipe=MergeRecipe("dare", density=0.2, seed=3),
        )  # fmt: skip


def test_it_is_no_model(paths: dict[str, Path], tmp_path: Path) -> None:
    """Neither the folder nor a file in it, for any command that takes a model."""
    base, patch = paths["base"], tmp_path / "x.patchc"
    patchc.diff(base, base, out=patch)
    message = "compact component of `patchc derive`, which holds retained entries and is no model"
    for model in (paths["se"], paths["se"] / "component.safetensors"):
        for call in (
            lambda model=model: patchc.apply(patch, model, out=tmp_path / "out"),
            lambda model=model: patchc.revert(patch, model, out=tmp_path / "out"),
            lambda model=model: patchc.apply(patch, model, in_place=True),
            lambda model=model: patchc.diff(base, model, out=tmp_path / "y.patchc"),
            lambda model=model: patchc.diff(model, base, out=tmp_path / "y.patchc"),
            lambda model=model: patchc.verify(patch, model),
            lambda model=model: patchc.build(model, se=paths["se"], osm=paths["osm"], out=patch),
        ):
            with pytest.raises(UnsupportedInputError, match=message):
                call()


def test_evaluate_and_derive_refuse_it(paths: dict[str, Path], tmp_path: Path) -> None:
    requests = tmp_path / "h.jsonl"
    requests.write_text('{"prompt": "how"}\n')
    with pytest.raises(PatchcError, match=r"compact component .* is no model"):
        patchc.evaluate([paths["se"]], harmful=requests, harmless=requests)
    with pytest.raises(PatchcError, match=r"compact component .* is no model"):
        patchc.derive(paths["se"], requests, tmp_path / "out")


def test_the_command_says_so(paths: dict[str, Path], tmp_path: Path) -> None:
    named = ["build", paths["base"], "--se", paths["se"], "--osm", paths["osm"]]
    out = tmp_path / "x.patchc"
    code, _, _ = run(*named, "--retain", "0.2", "--seed", "3", "-o", out)
    assert code == 0
    code, _, errors = run(*named, "--retain", "0.1", "--seed", "3", "-o", tmp_path / "y.patchc")
    assert code == MismatchError.exit_code
    assert "set retain to 0.2" in " ".join(errors.split())
