"""Which entries components hold: by a recipe, or by a share and a seed; and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from patchc import DeriveOptions, MergeRecipe, Recipe
from patchc.derivation.for_recipe import options_for
from patchc.errors import UsageError
from patchc.recipe import Override
from patchc.selection.compact.holding import Holding


def test_a_share_and_a_seed() -> None:
    assert DeriveOptions().holding is None
    assert DeriveOptions(retain=0.1, seed=4).holding == Holding(False, 4, 0.1)
    assert DeriveOptions(retain=0.1, seed=4, retention_seed=9).holding == Holding(False, 9, 0.1)
    margin = DeriveOptions(objective="margin", retain=0.1, seed=4)
    assert margin.holding == Holding(True, 4, 0.1)
    assert margin.scores == ()
    whole = DeriveOptions(objective="margin", retain=0.1, whole=True)
    assert whole.holding is None
    assert whole.scores == ("weight",)


def test_a_recipe_gives_p_seed_scores_and_tensors() -> None:
    recipe = Recipe(
        retain=0.05, seed=8, score="base-delta", include=("mlp",), exclude=("layers.0",), alpha=9,
        overrides=(Override("layers.1", retain=0.5, beta=2.0), Override("up", alpha=1.0)),
    )  # fmt: skip
    options = options_for(DeriveOptions(seed=1), recipe)
    assert options.holding == Holding(False, 8, 0.05, (Override("layers.1", retain=0.5),))
    assert (options.scores, options.include) == (("base-delta",), ("mlp",))
    assert (options.exclude, options.seed) == (("layers.0",), 1)
    assert options.holding.share("model.layers.1.up") == 0.5
    assert options.holding.share("model.layers.2.up") == 0.05
    assert json.loads(json.dumps(options.to_json()))["compact"]["seed"] == 8


def test_scales_and_shares_of_top_sets_decide_nothing() -> None:
    first = options_for(DeriveOptions(), Recipe(alpha=1, top_se=0.1, scope="row", sets="union"))
    assert first == options_for(DeriveOptions(), Recipe(beta=3, rescale=True, least_step=4))


def test_a_merge_needs_no_scores() -> None:
    options = options_for(DeriveOptions(), MergeRecipe("dare", density=0.3, seed=2))
    assert options.holding == Holding(True, 2, 0.3)
    assert options.scores == ()
    assert options.holding.component("osm", options.folders) == "model-1"


def test_margin_tunes_what_a_merge_keeps_unless_it_rescales() -> None:
    margin = DeriveOptions(objective="margin", seed=2)
    kept = options_for(margin, MergeRecipe("dare", density=0.3, seed=2, rescale=False))
    assert (kept.retain, kept.holding) == (0.3, Holding(True, 2, 0.3))
    thinned = options_for(margin, MergeRecipe("dare", density=0.3, seed=9))
    assert (thinned.retain, thinned.holding) == (1.0, Holding(True, 9, 0.3))
    ranked = options_for(margin, Recipe(sets="se", seed=9))
    assert (ranked.retain, ranked.holding) == (1.0, Holding(False, 9, 0.2))
    assert ranked.holding.component("margin", ranked.folders) == "se"


@pytest.mark.parametrize("recipe", [Recipe(retain=1.0), MergeRecipe("dare", density=1.0)])
def test_whole_models_are_written_where_everything_is_retained(recipe: Any) -> None:
    assert options_for(DeriveOptions(), recipe).holding is None


@pytest.mark.parametrize(
    ("options", "recipe", "message"),
    [
        ({}, Recipe(rank_among="all"), "rank_among is 'all', which ranks every entry.* derive wit"),
        (
            {},
            MergeRecipe("ties"),
            "method is ties, which looks at every entry.* take dare, or der",
        ),
        ({}, MergeRecipe("magnitude"), "method is magnitude, which looks at every entry"),
        ({}, MergeRecipe("task-arithmetic"), "method is task-arithmetic, which looks at every en"),
        ({"retain": 0.5}, Recipe(), "leave retain and retention_seed out"),
        ({"scores": ("delta",)}, Recipe(), "scores are delta, and the recipe ranks by weight"),
        ({"include": ("a",)}, Recipe(include=("b",)), r"include is \['a'\], and the recipe's is"),
        ({"exclude": ("a",)}, MergeRecipe("dare"), r"exclude is \['a'\], and the recipe's is \[\]"),
        (
            {"objective": "margin", "whole": True, "retain": 0.5},
            MergeRecipe("dare"),
            "whole writes every entry",
        ),
        (
            {"objective": "margin", "seed": 1},
            MergeRecipe("dare", rescale=False),
            "the recipe's seed is 0, and margin draws the entries that it tunes by seed, .* is 1",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options: Any, recipe: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        options_for(DeriveOptions(**options), recipe)
