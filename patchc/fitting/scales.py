"""Scales that tensors share, and the recipe that holds them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from patchc.errors import UsageError
from patchc.fitting.fit_options import Sharing
from patchc.recipe import MergeOverride, MergeRecipe, Override, Recipe, exact_match
from patchc.selection.candidates import layer_of, module_of, natural_order

Values = NDArray[np.float64]
"""Scales as a recipe states them: shape (components, groups)."""

_DIGITS = 5
_NAMES = {"se": "alpha", "osm": "beta"}


@dataclass(frozen=True)
class Group:
    """Tensors that share their scales, and the expression that matches them in a recipe."""

    match: str
    tensors: tuple[str, ...]


class ScaleGroups:
    """What is fitted: one scale a component and group.

    Args:
        recipe: the method and its other parameters; its scales are where a fit starts.
        components: of SafePatching "se", "osm" or both; of a merge one name a tuned model; of TIES
            one, whose scale is λ.
        tensors: the names that take part.
        sharing: what shares a scale.

    Raises:
        UsageError: the recipe has different scales for tensors that share one.
    """

    def __init__(
        self,
        recipe: Recipe | MergeRecipe,
        components: Sequence[str],
        tensors: Sequence[str],
        sharing: Sharing,
    ) -> None:
        self.recipe = recipe
        self.components = tuple(components)
        self.groups = group_tensors(tensors, sharing)
        self._is_global = sharing == "global"
        for group in self.groups:
            for component in range(len(self.components)):
                if len({self._own(component, name) for name in group.tensors}) > 1:
                    raise UsageError(
                        f"the recipe gives tensors such as {group.tensors[0]!r} scales of their "
                        "own, and they are to share one; take scales by tensor, or leave these out"
                    )

    def start(self) -> Values:
        """The recipe's own scales."""
        return np.array(
            [
                [self._own(component, group.tensors[0]) for group in self.groups]
                for component in range(len(self.components))
            ]
        )

    def factors(self, values: Values) -> dict[str, list[np.float32]]:
        """Of each tensor, the factors as a build takes them: over p or the density on rescaling."""
        return {
            name: [
                np.float32(_divided(float(value), self._divisor(name)))
                for value in values[:, number]
            ]
            for number, group in enumerate(self.groups)
            for name in group.tensors
        }

    def slopes(self, by_tensor: Mapping[str, Sequence[float]]) -> Values:
        """Sums of the factors' slopes, as slopes of the recipe's scales."""
        found = np.zeros((len(self.components), len(self.groups)))
        for number, group in enumerate(self.groups):
            for name in group.tensors:
                divisor = self._divisor(name)
                found[:, number] += [_divided(slope, divisor) for slope in by_tensor[name]]
        return found

    def to_recipe(self, values: Values) -> Recipe | MergeRecipe:
        """The recipe of a point; what it was given for single tensors besides scales is kept."""
        if self._is_global and not self.recipe.overrides:
            return self._with_common(values[:, 0])
        common = tidy(values.mean(axis=1))
        overrides = tuple(
            self._override(group.match, values[:, number])
            for number, group in enumerate(self.groups)
        )
        recipe = self._with_common(common)
        return replace(recipe, overrides=(*recipe.overrides, *overrides))  # type: ignore[arg-type]

    def _own(self, component: int, tensor: str) -> float:
        recipe = self.recipe.for_tensor(tensor)
        if isinstance(recipe, Recipe):
            return float(getattr(recipe, _NAMES[self.components[component]]))
        if recipe.method == "ties":
            return recipe.lambda_
        return recipe.weights(len(self.components))[component]

    def _divisor(self, tensor: str) -> float:
        recipe = self.recipe.for_tensor(tensor)
        if not recipe.rescale:
            return 1.0
        return recipe.retain if isinstance(recipe, Recipe) else recipe.share

    def _with_common(self, values: Values) -> Recipe | MergeRecipe:
        if isinstance(self.recipe, Recipe):
            named = {_NAMES[c]: float(v) for c, v in zip(self.components, values, strict=True)}
            return replace(self.recipe, **named)  # type: ignore[arg-type]
        if self.recipe.method == "ties":
            return replace(self.recipe, lambda_=float(values[0]))
        return replace(self.recipe, weight=_weights(values))

    def _override(self, match: str, values: Values) -> Override | MergeOverride:
        if isinstance(self.recipe, Recipe):
            named = {_NAMES[c]: float(v) for c, v in zip(self.components, values, strict=True)}
            return Override(match, **named)
        if self.recipe.method == "ties":
            return MergeOverride(match, lambda_=float(values[0]))
        return MergeOverride(match, weight=_weights(values))


def group_tensors(tensors: Sequence[str], sharing: Sharing) -> tuple[Group, ...]:
    """The groups of tensors that share scales, in their natural order, and what matches them."""
    ordered = sorted(tensors, key=natural_order)
    if sharing == "global":
        return (Group("", tuple(ordered)),)
    keys: dict[Sharing, Callable[[str], str]] = {
        "layer": layer_of,
        "module": module_of,
        "tensor": str,
    }
    key = keys[sharing]
    members: dict[str, list[str]] = {}
    for name in ordered:
        members.setdefault(key(name), []).append(name)
    groups = []
    for shared, names in members.items():
        match = _expression(sharing, shared)
        inside = [name for name in ordered if re.search(match, name)]
        if inside != names:
            match = "|".join(exact_match(name) for name in names)
        groups.append(Group(match, tuple(names)))
    return tuple(groups)


def tidy(values: Values) -> Values:
    """Values of five significant digits: a recipe stays readable, and says what was measured."""
    return np.array([float(f"{value:.{_DIGITS}g}") for value in values.ravel()]).reshape(
        values.shape
    )


def _expression(sharing: Sharing, shared: str) -> str:
    if sharing == "layer":
        return rf"^{re.escape(shared)}\."
    if sharing == "module":
        return rf"\.\d+\.{re.escape(shared)}(?:\.weight)?$"
    return exact_match(shared)


def _divided(value: float, divisor: float) -> float:
    return value / divisor if divisor else 0.0


def _weights(values: Values) -> float | tuple[float, ...]:
    return float(values[0]) if len(values) == 1 else tuple(map(float, values))
