"""What is compared: the methods, the grids that they are tuned on, and the ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from patchc.evaluation.trials import Trial
from patchc.recipe import MergeRecipe, Recipe

AnyRecipe = Recipe | MergeRecipe

DEVELOPMENT_SEED = 100
"""Retention seed while parameters are chosen; the test uses others, from 0."""


def by_sum(trial: Trial, base: Trial) -> float:
    """The sum of the two rates, plus what utility costs; the lowest is chosen, for every method."""
    return trial.harmful.value + trial.over_refusal.value + _lost(trial, base)


def _lost(trial: Trial, base: Trial) -> float:
    """Utility lost beyond one question in twenty, and degenerate replies."""
    lost = 0.0
    if trial.utility and base.utility:
        lost = max(0.0, base.utility.value - trial.utility.value - 0.05)
    return lost + trial.degenerate.value


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        name: of the row.
        recipe: the method and its fixed parameters.
        grids: points to try on the development split; the lowest :func:`by_sum` is tested.
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
        {"alpha": [2], "beta": [2.5, 2.7, 2.8, 2.9, 3.0]},
        {"alpha": [3], "beta": [3.8, 4.0, 4.2]},
        {"alpha": [4], "beta": [5.0, 5.25, 5.5]},
        {"retain": [0.15], "alpha": [2], "beta": [2.3, 2.6]},
        {"retain": [0.6], "alpha": [2], "beta": [3.2, 3.6]},
        {"top_se": [0.05], "top_osm": [0.05], "alpha": [3], "beta": [4.2, 4.6]},
    ),
    seeds=5,
)


def comparisons() -> list[Method]:
    """The methods that SafePatching is compared with, each tuned on the same split."""
    scales = ({"alpha": [2], "beta": [2, 3]}, {"alpha": [4], "beta": [2, 4, 5, 6]})
    weights = [(0.3, 0.3), (0.3, 0.45), (0.6, 0.6), (0.6, 0.9), (1.0, 1.0), (1.0, 1.5)]
    raised = [(round(2 * one, 2), round(2 * other, 2)) for one, other in weights]
    return [
        Method("intersection", _recipe(sets="intersection"), scales, seeds=3),
        Method("union", _recipe(sets="union"), scales, seeds=3),
        Method("no retention", _recipe(retain=1.0), scales),
        Method("task arithmetic", MergeRecipe("task-arithmetic"), ({"weight": weights},)),
        Method("TIES", MergeRecipe("ties"), ({"density": [0.2, 0.5], "lambda": [0.5, 1.0, 2.0]},)),
        Method(
            "DARE",
            MergeRecipe("dare", density=0.3, seed=DEVELOPMENT_SEED),
            ({"weight": weights},),
            seeds=3,
        ),
        Method("magnitude", MergeRecipe("magnitude"), ({"weight": raised},)),
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
    return [Method(name, replace(chosen, **change), seeds=2) for name, change in changes.items()]


def frontier(chosen: Recipe) -> list[Method]:
    """Ever smaller densities with α and β raised, and then the smallest steps left out."""
    methods = []
    for density, least_step in (
        (0.03, 1), (0.01, 1), (0.003, 1), (0.003, 4), (0.001, 1), (0.0003, 1),
    ):  # fmt: skip
        growth = (chosen.top_se / density) ** 0.4
        recipe = replace(
            chosen,
            top_se=density,
            top_osm=density,
            least_step=least_step,
            seed=DEVELOPMENT_SEED,
        )
        grids = tuple(
            {
                "alpha": [round(chosen.alpha * growth * factor, 1)],
                "beta": [round(chosen.beta * growth * factor * ratio, 1) for ratio in (0.9, 1.1)],
            }
            for factor in (0.75, 1.3)
        )
        label = f"a = b = {density:.2%}" + (f", steps ≥ {least_step}" if least_step > 1 else "")
        methods.append(Method(label, recipe, grids, seeds=2))
    return methods


def _recipe(**changes: Any) -> Recipe:
    return replace(SAFEPATCHING.recipe, **changes)
