"""The recipe that the options of ``patchc build`` choose."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from patchc.cli.output import warn
from patchc.errors import UsageError
from patchc.recipe import MergeRecipe, Recipe, find_recipe_and_keys

_SYMBOLS = {"alpha": "α", "beta": "β"}


def choose_recipe(name: str, **options: Any) -> tuple[Recipe | MergeRecipe, frozenset[str]]:
    """A method's defaults or a file's recipe, with the options that are not None worked in.

    Returns:
        The recipe, and the keys that the file or the options give.

    Raises:
        UsageError: the recipe cannot be read, or an option is not one of its method's.
    """
    recipe, keys = find_recipe_and_keys(name)
    given = {name: value for name, value in options.items() if value is not None}
    for option in given:
        if not hasattr(recipe, option):
            flag = option.strip("_").replace("_", "-")
            method = recipe.to_json()["method"]
            raise UsageError(f"--{flag} is not an option of {method}; leave it out")
    return recipe.with_changes(**given), keys | given.keys()


def warn_of_unfitted(recipe: Recipe | MergeRecipe, given: Collection[str]) -> None:
    """Warn where a scale of SafePatching is a default, which suits few models."""
    unfitted = recipe.unfitted(given) if isinstance(recipe, Recipe) else ()
    if unfitted:
        scales = " and ".join(f"{_SYMBOLS[one]} {getattr(recipe, one):g}" for one in unfitted)
        kind = "defaults" if len(unfitted) > 1 else "a default"
        verb = "are" if len(unfitted) > 1 else "is"
        warn(f"{scales} {verb} {kind}, not fitted to these models; fit scales with `patchc fit`")
