"""What is compared: the methods, the grids they are tuned on, and the ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from patchc.recipe import MergeRecipe, Recipe

AnyRecipe = Recipe | MergeRecipe

DEVELOPMENT_SEED = 100
"""Retention seed while hyper-parameters are chosen; the test uses others."""


@dataclass(frozen=True)
class Method:
    """One row of the table.

    ``grid`` is tried on the development split and the cheapest point is tested, with ``seeds``
    retention seeds where the method draws at random.
    """

    name: str
    recipe: AnyRecipe
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    seeds: int = 1


def pairs(first: Sequence[float], ratios: Sequence[float]) -> list[tuple[float, float]]:
    """Weights of the two deltas: every first one with the second at every ratio to it."""
    return [(one, round(one * ratio, 4)) for one in first for ratio in ratios]


def safepatching(**changes: Any) -> Recipe:
    """SafePatching with the development seed."""
    return Recipe(seed=DEVELOPMENT_SEED).with_changes(**changes)
