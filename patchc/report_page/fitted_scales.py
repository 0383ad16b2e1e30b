"""The scales that a patch's recipe has for its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patchc.errors import UsageError
from patchc.recipe import MergeRecipe, Recipe
from patchc.selection.safepatching.inputs import components_read

_NAMES = {"se": ("alpha", "α, safety enhancement"), "osm": ("beta", "β, over-safety mitigation")}
_MOST_MATCHES = 2_000_000
"""Names times expressions that are tried on a stranger's recipe."""


@dataclass(frozen=True)
class FittedScales:
    """For each component its scale of each tensor."""

    by_component: Mapping[str, dict[str, float]]

    @property
    def components(self) -> list[str]:
        """The components' names."""
        return list(self.by_component)

    def of(self, component: str) -> dict[str, float]:
        """The scale of each tensor."""
        return self.by_component[component]


def scales_of(metadata: Mapping[str, Any], tensors: Sequence[str]) -> FittedScales | None:
    """Find the scales of tensors by the recipe in a patch's metadata.

    Returns:
        None without a recipe that gives tensors scales of their own: there is nothing to map then.
    """
    content = metadata.get("recipe")
    if not isinstance(content, dict) or not content.get("overrides"):
        return None
    try:
        kind = MergeRecipe if content.get("method") in MergeRecipe.methods else Recipe
        recipe: Recipe | MergeRecipe = kind.from_json(content)
    except UsageError:
        return None
    if len(recipe.overrides) * len(tensors) > _MOST_MATCHES:
        return None
    found: dict[str, dict[str, float]] = {}
    for name in tensors:
        for component, scale in _scales(recipe.for_tensor(name)).items():
            found.setdefault(component, {})[name] = scale
    return FittedScales(found) if found else None


def _scales(recipe: Recipe | MergeRecipe) -> dict[str, float]:
    if isinstance(recipe, Recipe):
        named = (_NAMES[one] for one in components_read(recipe))
        return {called: float(getattr(recipe, name)) for name, called in named}
    if recipe.method == "ties":
        return {"λ, of the merge": recipe.lambda_}
    weights = recipe.weight if isinstance(recipe.weight, tuple) else (recipe.weight,)
    if len(weights) == 1:
        return {"the only component": weights[0]}
    return {f"component {number}": one for number, one in enumerate(weights, start=1)}
