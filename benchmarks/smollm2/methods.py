"""What is compared: the methods, the grids that they are tuned on, and the ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from patchc.recipe import MergeRecipe, Recipe

AnyRecipe = Recipe | MergeRecipe

DEVELOPMENT_SEED = 100
"""Retention seed while parameters are chosen; the test uses others, from 0."""


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        name: of the row.
        recipe: the method and its fixed parameters.
        grids: points to try on the development split; of all their points the cheapest is tested.
        seeds: retention seeds of the test; 1 where nothing is drawn at random.
    """

    name: str
    recipe: AnyRecipe
    grids: tuple[Mapping[str, Sequence[Any]], ...] = field(default_factory=tuple)
    seeds: int = 1


SAFEPATCHING = Method(
    "SafePatching",
    Recipe(seed=DEVELOPMENT_SEED),
    (
        {"alpha": [4, 6, 8, 12], "beta": [4, 6, 8, 10, 12, 16]},
        {"retain": [0.15, 0.6], "alpha": [8], "beta": [8, 10, 12]},
        {"top_se": [0.05], "top_osm": [0.05], "alpha": [10], "beta": [10, 13, 16]},
        {"top_se": [0.05, 0.2], "top_osm": [0.1], "alpha": [8], "beta": [8, 10]},
    ),
    seeds=5,
)


def comparisons() -> list[Method]:
    """The methods that SafePatching is compared with, each tuned on the same split."""
    scales = {"alpha": [1, 2, 4, 8], "beta": [1, 2, 4, 8, 12]}
    weights = [(w, round(w * ratio, 3)) for w in (0.3, 0.6, 1.0, 1.5) for ratio in (0.5, 1, 1.5)]
    return [
        Method("intersection", _recipe(sets="intersection"), (scales,), seeds=3),
        Method("union", _recipe(sets="union"), (scales,), seeds=3),
        Method("no retention", _recipe(retain=1.0), (scales,)),
        Method("task arithmetic", MergeRecipe("task-arithmetic"), ({"weight": weights},)),
        Method(
            "TIES",
            MergeRecipe("ties"),
            ({"density": [0.1, 0.2, 0.5], "lambda": [1.0, 2.0, 4.0], "weight": [1.0]},),
        ),
        Method(
            "DARE",
            MergeRecipe("dare", density=0.3, seed=DEVELOPMENT_SEED),
            ({"weight": weights},),
            seeds=3,
        ),
        Method(
            "magnitude",
            MergeRecipe("magnitude"),
            ({"density": [0.05, 0.2], "weight": [(w * 4, v * 4) for w, v in weights[3:9]]},),
        ),
    ]


def ablations(chosen: Recipe) -> list[Method]:
    """SafePatching with one option changed and everything else as chosen."""
    changes: dict[str, dict[str, Any]] = {
        "α = β = 1": {"alpha": 1, "beta": 1},
        "β = 0": {"beta": 0},
        "α = 0": {"alpha": 0},
        "rank among all": {"rank_among": "all"},
        "scope row": {"scope": "row"},
        "scope global": {"scope": "global"},
        "score |P ⊙ g|": {"score": "delta"},
        "score |W ⊙ g| on the base": {"score": "base-weight"},
        "score |P ⊙ g| on the base": {"score": "base-delta"},
    }
    return [Method(name, replace(chosen, **change), seeds=3) for name, change in changes.items()]


def frontier(chosen: Recipe) -> list[Method]:
    """Ever smaller densities, α and β raised; and the smallest steps left out."""
    methods = []
    for density in (0.03, 0.01, 0.003, 0.001):
        growth = (chosen.top_se / density) ** 0.5
        for least_step in (1, 3):
            scales = [growth * factor for factor in (0.7, 1.0, 1.4)]
            points = tuple(
                {"alpha": [round(chosen.alpha * s, 1)], "beta": [round(chosen.beta * s * r, 1)]}
                for s in scales
                for r in (0.85, 1.0, 1.15)
            )
            recipe = replace(
                chosen,
                top_se=density,
                top_osm=density * chosen.top_osm / chosen.top_se,
                least_step=least_step,
                seed=DEVELOPMENT_SEED,
            )
            label = f"a = {density:.1%}" + (f", steps ≥ {least_step}" if least_step > 1 else "")
            methods.append(Method(label, recipe, points, seeds=3))
    return methods


def _recipe(**changes: Any) -> Recipe:
    return replace(SAFEPATCHING.recipe, **changes)
