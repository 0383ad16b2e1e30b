"""The parameters of a build: validated, read from files, serialised into the patch."""

from patchc.recipe.files import METHODS, find_recipe, read_recipe
from patchc.recipe.merge import MergeRecipe
from patchc.recipe.safepatching import Override, Recipe

__all__ = ["METHODS", "MergeRecipe", "Override", "Recipe", "find_recipe", "read_recipe"]
