"""What is compared on every policy: ways to derive, recipes, and what shares a scale."""

from __future__ import annotations

from dataclasses import dataclass, replace

from patchc import DeriveOptions, FitOptions, FixOptions
from patchc.derivation.derive_options import Objective
from patchc.fitting.fit_options import Sharing
from patchc.recipe import MergeRecipe, Recipe

LONG = FitOptions(steps=60, learning_rate=0.1, best_effort=True)
"""Fits of deltas that were not derived for the purpose."""

DERIVED = {"SE, whole": "se", "OSM, whole": "osm"}
"""The pair's tuned models themselves, by the names of their rows."""


@dataclass(frozen=True)
class Row:
    """One way to a patch.

    Attributes:
        name: of the row and its folder.
        options: what `fix` is given, but for judge and seed.
        answered: whether the development requests come with answers.
        seeds: how many seeds.
    """

    name: str
    options: FixOptions
    answered: bool = False
    seeds: int = 1


def rows() -> list[Row]:
    """Every row, the most telling first."""
    margin = FixOptions()
    return [
        Row("default", margin, seeds=3),
        Row("density 5 %", replace(margin, recipe=_kept(0.05))),
        Row("density 0.1 %", replace(margin, recipe=_kept(0.001))),
        Row("dense", replace(margin, recipe=_kept(1.0))),
        Row("dense, thinned to 1 %", replace(margin, recipe=MergeRecipe("dare", density=0.01))),
        _from("pair", "pair, a scale a tensor", Recipe()),
        _from("pair", "pair, a scale a layer", Recipe(), "layer"),
        _from("pair", "pair, two scales (the paper)", Recipe(), "global"),
        _from("refusals", "refusals", Recipe(sets="se")),
        _from("npo", "NPO", Recipe(sets="se")),
        _from("answers", "answers", Recipe(sets="osm")),
        _from("pair", "pair, intersection", Recipe(sets="intersection")),
        _from("pair", "pair, SE alone", Recipe(sets="se")),
        _from("pair", "pair, OSM alone", Recipe(sets="osm")),
        _from("pair", "pair, task arithmetic", MergeRecipe("task-arithmetic")),
        _from("pair", "pair, DARE", MergeRecipe("dare", density=0.2)),
        _from("pair", "pair, TIES", MergeRecipe("ties", weight=(1.0, 0.7))),
        _from("pair", "pair, magnitude", MergeRecipe("magnitude")),
    ]


def _kept(density: float) -> MergeRecipe:
    return MergeRecipe("dare", density=density, rescale=False)


def _from(
    objective: Objective, name: str, recipe: Recipe | MergeRecipe, sharing: Sharing = "tensor"
) -> Row:
    derive = DeriveOptions(objective=objective, precision="bfloat16")
    return Row(
        name,
        FixOptions(derive=derive, recipe=recipe, fit=replace(LONG, sharing=sharing)),
        answered=objective in ("pair", "npo", "answers"),
    )
