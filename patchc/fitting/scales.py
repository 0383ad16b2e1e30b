"""The scales that a fit learns: which tensors share one, and the recipe that states them.

A scale multiplies a component's delta before it is added to the base: α for safety enhancement
(SE), β for over-safety mitigation (OSM), or a merge's weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchc.errors import UsageError
from patchc.fitting.fit_options import Sharing
from patchc.recipe import MergeOverride, MergeRecipe, Override, Recipe, exact_match
from patchc.recipe.expressions import expression
from patchc.selection.candidates import layer_of, module_of, natural_order

Values = NDArray[np.float64]
"""Scales as a recipe states them: shape (components, groups)."""

_DIGITS = 5
"""Significant digits of a scale."""
_NAMES = {"se": "alpha", "osm": "beta"}


@dataclass(frozen=True)
class Group:
    """Tensors that share their scales, and the expression that matches them in a recipe."""

    match: str
    tensors: tuple[str, ...]


class ScaleGroups:
    """What is fitted: one scale for each component and group of tensors.

    Args:
        recipe: the method and its other parameters; a fit starts from its scales.
        components: for SafePatching "se", "osm" or both; for a merge one name per tuned model; for
            TIES a single one, whose scale is λ.
        tensors: the names that take part.
        sharing: which tensors share a scale.

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
        self._divisors = {name: self._divisor(name) for name in tensors}
        for group in self.groups:
            if len({self._own(name) for name in group.tensors}) > 1:
                raise UsageError(
                    f"the recipe gives tensors such as {group.tensors[0]!r} scales of their own, "
                    "but they should share one; take scales by tensor, or leave these out"
                )

    def start(self) -> Values:
        """Return the recipe's own scales."""
        by_group = np.array([self._own(group.tensors[0]) for group in self.groups])
        return np.ascontiguousarray(by_group.T)

    def tensor_scales(self, values: Values) -> dict[str, list[np.float32]]:
        """Compute the scales of each tensor as a build applies them.

        With rescaling, they are divided by the probability of retention or by the density.
        """
        return {
            name: [np.float32(self._divided(float(value), name)) for value in values[:, number]]
            for number, group in enumerate(self.groups)
            for name in group.tensors
        }

    def gradients(self, by_tensor: Mapping[str, Sequence[float]]) -> Values:
        """Sum the gradients of :meth:`tensor_scales` into those of the recipe's scales."""
        found = np.zeros((len(self.components), len(self.groups)))
        for number, group in enumerate(self.groups):
            for name in group.tensors:
                found[:, number] += [self._divided(one, name) for one in by_tensor[name]]
        return found

    def to_recipe(self, values: Values) -> Recipe | MergeRecipe:
        """Make the recipe of a point; its own overrides for tensors stay, except for scales."""
        if self._is_global and not self.recipe.overrides:
            return replace(self.recipe, **self._stated(values[:, 0]))
        override: type[Any] = Override if isinstance(self.recipe, Recipe) else MergeOverride
        overrides = tuple(
            override(group.match, **self._stated(values[:, number]))
            for number, group in enumerate(self.groups)
        )
        common = self._stated(tidy(values.mean(axis=1)))
        common["overrides"] = (*self.recipe.overrides, *overrides)
        return replace(self.recipe, **common)

    def _own(self, tensor: str) -> tuple[float, ...]:
        """Return the recipe's scales of a tensor, one for each component."""
        recipe = self.recipe.for_tensor(tensor)
        if isinstance(recipe, Recipe):
            return tuple(float(getattr(recipe, _NAMES[one])) for one in self.components)
        if recipe.method == "ties":
            return (recipe.lambda_,)
        return recipe.weights(len(self.components))

    def _divisor(self, tensor: str) -> float:
        recipe = self.recipe.for_tensor(tensor)
        if not recipe.rescale:
            return 1.0
        return recipe.retain if isinstance(recipe, Recipe) else recipe.share

    def _divided(self, value: float, tensor: str) -> float:
        divisor = self._divisors[tensor]
        return value / divisor if divisor else 0.0

    def _stated(self, values: Values) -> dict[str, Any]:
        """Name one scale for each component as a recipe's parameters are named."""
        scales = [float(value) for value in values]
        if isinstance(self.recipe, Recipe):
            return {_NAMES[one]: scale for one, scale in zip(self.components, scales, strict=True)}
        if self.recipe.method == "ties":
            return {"lambda_": scales[0]}
        return {"weight": scales[0] if len(scales) == 1 else tuple(scales)}


def group_tensors(tensors: Sequence[str], sharing: Sharing) -> tuple[Group, ...]:
    """Group the tensors that share scales, in their natural order, and find what matches them."""
    ordered = sorted(tensors, key=natural_order)
    if sharing == "global":
        return (Group("", tuple(ordered)),)
    keys = {"layer": layer_of, "module": module_of}
    members: dict[str, list[str]] = {}
    for name in ordered:
        shared = keys[sharing](name) if sharing in keys else name
        members.setdefault(shared, []).append(name)
    groups = []
    for shared, names in members.items():
        match = _expression(sharing, shared)
        if [name for name in ordered if expression(match).matches(name)] != names:
            match = "|".join(exact_match(name) for name in names)
        groups.append(Group(match, tuple(names)))
    return tuple(groups)


def tidy(values: Values) -> Values:
    """Round to five significant digits, so that a recipe is readable and exact."""
    rounded = [float(f"{value:.{_DIGITS}g}") for value in values.ravel()]
    return np.array(rounded).reshape(values.shape)


def _expression(sharing: Sharing, shared: str) -> str:
    if sharing == "layer":
        return rf"^{re.escape(shared)}\."
    if sharing == "module":
        return rf"\.\d+\.{re.escape(shared)}(?:\.weight)?$"
    return exact_match(shared)
