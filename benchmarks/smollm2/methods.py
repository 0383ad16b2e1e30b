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


SCALE_EXPONENT = 0.92
"""α and β are tried around the inverse density to this power, which earlier trials suggested."""


def by_sum(trial: Trial, base: Trial) -> tuple[float, float]:
    """What is made small for every method: both rates and lost utility; then the perplexity."""
    rates = trial.harmful.value + trial.over_refusal.value + _lost(trial, base)
    return rates, trial.perplexity or 0.0


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


def _scales(retain: float, top: float, alpha: float, *betas: float) -> dict[str, Sequence[Any]]:
    """Points that differ in β, at the same p, a = b and α."""
    return {
        "retain": [retain],
        "top_se": [top],
        "top_osm": [top],
        "alpha": [alpha],
        "beta": list(betas),
    }


SAFEPATCHING = Method(
    "SafePatching",
    Recipe(seed=DEVELOPMENT_SEED),
    (
        _scales(0.1, 0.08, 7, 6.3, 6.5),
        _scales(0.1, 0.08, 8, 7.2, 7.3, 7.4),
        _scales(0.1, 0.08, 9, 8.1, 8.3),
        _scales(0.2, 0.15, 5, 4.4, 4.5),
        _scales(0.3, 0.25, 3.6, 3.1, 3.2),
        _scales(0.3, 0.1, 5, 6.0, 6.25),
        _scales(0.03, 0.024, 24, 21.8, 22.3),
    ),
    seeds=5,
)


def comparisons() -> list[Method]:
    """The methods that SafePatching is compared with, each tuned on the same split."""
    weights = [
        (0.8, 0.7), (1.0, 0.9), (1.2, 1.05), (1.3, 1.1),
        (1.3, 1.15), (1.4, 1.2), (1.4, 1.25), (1.6, 1.4),
    ]  # fmt: skip
    raised = [(1.2, 1.0), (1.5, 1.2), (1.5, 1.3), (1.8, 1.5), (1.8, 1.6), (2.2, 1.9)]
    uneven = [(1.0, 0.6), (1.0, 0.8)]
    return [
        Method(
            "intersection",
            _recipe(sets="intersection"),
            (
                _scales(0.3, 0.1, 5, 4.5, 5.5),
                _scales(0.3, 0.1, 10, 9, 10),
                _scales(0.3, 0.25, 5, 4.3, 4.6),
                _scales(0.3, 0.25, 10, 8, 8.6),
            ),
            seeds=3,
        ),
        Method(
            "union",
            _recipe(sets="union"),
            (
                _scales(0.1, 0.08, 7, 6.3, 6.5),
                _scales(0.1, 0.08, 8, 7.0, 7.2, 7.4),
                _scales(0.3, 0.1, 5, 5.6, 6.0),
            ),
            seeds=3,
        ),
        Method(
            "no retention",
            _recipe(),
            (
                _scales(1.0, 0.1, 2.5, 2.6, 3.0, 3.6, 4.2),
                _scales(1.0, 0.1, 4, 4.2, 4.8, 5.4),
                _scales(1.0, 0.3, 2.5, 2.6, 3.0, 3.8),
            ),
        ),
        Method("task arithmetic", MergeRecipe("task-arithmetic"), ({"weight": weights},)),
        Method(
            "TIES",
            MergeRecipe("ties"),
            (
                {"weight": uneven, "density": [0.2], "lambda": [0.6, 1.2]},
                {"weight": uneven, "density": [0.5], "lambda": [0.4, 0.8]},
                {"weight": [(1.0, 0.65), (1.0, 0.7)], "density": [0.2, 0.5], "lambda": [0.8]},
            ),
        ),
        Method(
            "DARE",
            MergeRecipe("dare", density=0.3, seed=DEVELOPMENT_SEED),
            ({"weight": weights}, {"weight": [(0.6, 0.5), (0.7, 0.6), (0.8, 0.65)]}),
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
        "no ranking: a = b = p": {"top_se": chosen.retain, "top_osm": chosen.retain},
        "rank among all": {"rank_among": "all"},
        "scope row": {"scope": "row"},
        "scope global": {"scope": "global"},
        "score |P ⊙ g|": {"score": "delta"},
        "score |W ⊙ g| on the base": {"score": "base-weight"},
        "score |P ⊙ g| on the base": {"score": "base-delta"},
    }
    return [Method(name, replace(chosen, **change)) for name, change in changes.items()]


def frontier(chosen: Recipe) -> list[Method]:
    """Ever smaller densities with α and β raised, and then the smallest steps left out."""
    methods = []
    for retain, least_step in (
        (0.03, 1), (0.01, 1), (0.01, 8), (0.003, 1), (0.001, 1), (0.0003, 1), (0.0001, 1),
    ):  # fmt: skip
        share = retain / chosen.retain
        growth = share**-SCALE_EXPONENT
        recipe = replace(
            chosen,
            retain=retain,
            top_se=chosen.top_se * share,
            top_osm=chosen.top_osm * share,
            least_step=least_step,
            seed=DEVELOPMENT_SEED,
        )
        grids = tuple(
            {
                "alpha": [_rounded(chosen.alpha * growth * factor)],
                "beta": [_rounded(chosen.beta * growth * factor * ratio) for ratio in (1.0, 1.02)],
            }
            for factor in (0.87, 1.02)
        )
        label = f"p = {retain:.2%}" + (f", steps ≥ {least_step}" if least_step > 1 else "")
        methods.append(Method(label, recipe, grids, seeds=2))
    return methods


def _rounded(scale: float) -> float:
    return float(f"{scale:.4g}")


def _recipe(**changes: Any) -> Recipe:
    return replace(SAFEPATCHING.recipe, **changes)
