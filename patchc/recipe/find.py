"""Recipes by name, and from TOML and YAML files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from patchc.errors import UsageError, unreadable
from patchc.recipe import checks
from patchc.recipe.plain_values import check_plain, parse_toml, read_text
from patchc.recipe.safepatching import Recipe
from patchc.recipe.task_merge import MergeRecipe
from patchc.system_errors import reason

METHODS = (*Recipe.methods, *MergeRecipe.methods)
"""Values of a recipe's key ``method``; each is also the name of that method's defaults."""

YAML_SUFFIXES = (".yaml", ".yml")
"""The ends of names of recipe files that are read as YAML."""


def find_recipe(name: str | os.PathLike[str]) -> Recipe | MergeRecipe:
    """Find the defaults of a method, by its name, or a recipe file, by its path.

    Raises:
        UsageError: as :func:`read_recipe`.
    """
    return find_recipe_and_keys(name)[0]


def find_recipe_and_keys(
    name: str | os.PathLike[str],
) -> tuple[Recipe | MergeRecipe, frozenset[str]]:
    """Find a recipe, and which keys its file gives; the name of a method gives none.

    Raises:
        UsageError: as :func:`read_recipe`.
    """
    if name in METHODS:
        return _from_json({"method": name}), frozenset()
    return _read(Path(name))


def read_recipe(path: str | os.PathLike[str]) -> Recipe | MergeRecipe:
    """Read a file of a recipe's keys and values: YAML by its suffix, else TOML.

    The key ``method`` decides whose they are: those of :class:`MergeRecipe` (``lambda_`` written as
    ``lambda``) for a merge, else those of :class:`Recipe`.

    Args:
        path: the file.

    Raises:
        UsageError: the file is missing, malformed, or has an unknown or invalid key.
    """
    return _read(Path(path))[0]


def given_recipe(recipe: Recipe | MergeRecipe | None) -> Recipe | MergeRecipe:
    """The recipe that a caller gives; None means SafePatching's defaults.

    Raises:
        UsageError: it is something else, such as the name of a method.
    """
    if recipe is None:
        return Recipe()
    if not isinstance(recipe, Recipe | MergeRecipe):
        raise UsageError(
            f"recipe is {recipe!r:.80}; give a Recipe, a MergeRecipe such as MergeRecipe('ties'), "
            "or what read_recipe finds in a file"
        )
    return recipe


def _read(path: Path) -> tuple[Recipe | MergeRecipe, frozenset[str]]:
    try:
        content = _parse(read_text(path), path.suffix.lower() in YAML_SUFFIXES)
        return _from_json(content), frozenset(content)
    except OSError as error:
        message = f"recipe {path}: cannot read: {reason(error)}; it is a file, or one of "
        raise unreadable(UsageError, message + ", ".join(METHODS), error) from error
    except UsageError as error:
        raise UsageError(f"recipe {path}: {error}") from error


def _parse(text: str, is_yaml: bool) -> Any:
    if not is_yaml:
        return parse_toml(text)
    from patchc.recipe.yaml_text import load_yaml

    try:
        content = load_yaml(text)
    except ValueError as error:
        raise UsageError(f"not valid YAML ({error})") from error
    check_plain(content)
    return content


def _from_json(content: Any) -> Recipe | MergeRecipe:
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsageError("holds no table of names and values")
    method = content.get("method", Recipe.method)
    checks.choice("method", method, METHODS)
    kind = Recipe if method == Recipe.method else MergeRecipe
    return kind.from_json(content)
