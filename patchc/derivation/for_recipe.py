"""Options of a derivation whose components hold what builds of one recipe read, and no more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from patchc.derivation.derive_options import DeriveOptions
from patchc.errors import UsageError
from patchc.recipe import MergeRecipe, Recipe
from patchc.selection.compact.holding import Holding


def options_for(options: DeriveOptions, recipe: Recipe | MergeRecipe) -> DeriveOptions:
    """Return the options with what a recipe decides.

    That is p, the seed of the draws, the kind of scores, and which tensors. Scales, sets, scope and
    the shares of top sets stay free. Where the recipe retains every entry, whole models are
    written.

    Raises:
        UsageError: builds of the recipe look at entries that are not retained, or the options ask
            for something else than the recipe.
    """
    if options.whole:
        raise UsageError(
            "whole writes every entry, and a recipe only what it retains; leave it out"
        )
    holding = Holding.of(recipe)
    changes: dict[str, Any] = _tensors(options, recipe)
    if isinstance(recipe, Recipe) and recipe.score not in options.scores:
        if options.scores not in ((), DeriveOptions.scores):
            raise UsageError(
                f"scores are {', '.join(options.scores)}, and the recipe ranks by {recipe.score}; "
                "name them too, or leave them out"
            )
        changes["scores"] = (recipe.score,)
    if holding.everything:
        return replace(options, **changes)
    # A merge that does not rescale keeps what was tuned, if nothing else was.
    if options.objective == "margin" and isinstance(recipe, MergeRecipe) and not recipe.rescale:
        if recipe.seed != options.seed:
            raise UsageError(
                f"the recipe's seed is {recipe.seed}, and margin draws the entries that it tunes "
                f"by seed, which is {options.seed}; make them the same"
            )
        changes["retain"] = recipe.share
    return replace(options, compact=holding, **changes)


def _tensors(options: DeriveOptions, recipe: Recipe | MergeRecipe) -> dict[str, tuple[str, ...]]:
    """Return the expressions over tensor names that the recipe and the options agree on."""
    scores_decide = isinstance(recipe, Recipe) or options.objective == "margin"
    agreed = {}
    for name in ("include", "exclude"):
        own, of_recipe = getattr(options, name), getattr(recipe, name)
        if own and own != of_recipe and (of_recipe or not scores_decide):
            raise UsageError(
                f"{name} is {list(own)}, and the recipe's is {list(of_recipe)}; give it in the "
                "recipe alone"
            )
        agreed[name] = own or of_recipe
    return agreed
