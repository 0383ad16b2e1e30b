"""Recipes: the parameters of a build, read from files and stored in the patch.

The defaults stand beside the parameters in :mod:`~patchc.recipe.safepatching` and
:mod:`~patchc.recipe.task_merge`.
"""

from patchc.recipe.find import (
    METHODS,
    find_recipe,
    find_recipe_and_keys,
    given_recipe,
    read_recipe,
)
from patchc.recipe.safepatching import Override, Recipe
from patchc.recipe.task_merge import MergeOverride, MergeRecipe
from patchc.recipe.toml_text import exact_match, recipe_text, write_recipe

__all__ = [
    "METHODS",
    "MergeOverride",
    "MergeRecipe",
    "Override",
    "Recipe",
    "exact_match",
    "find_recipe",
    "find_recipe_and_keys",
    "given_recipe",
    "read_recipe",
    "recipe_text",
    "write_recipe",
]
