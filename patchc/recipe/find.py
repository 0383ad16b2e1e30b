"""Recipes by name, and from TOML and YAML files."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchc.errors import UsageError
from patchc.recipe import checks
from patchc.recipe.safepatching import Recipe
from patchc.recipe.task_merge import MERGE_METHODS, MergeRecipe

METHODS = ("safepatching", *MERGE_METHODS)
"""Values of a recipe's key ``method``; each is also the name of that method's defaults."""

YAML_SUFFIXES = (".yaml", ".yml")
"""What the name of a recipe file ends in that is read as YAML."""


def find_recipe(name: str | os.PathLike[str]) -> Recipe | MergeRecipe:
    """The defaults of a method, by its name, or a recipe file, by its path.

    Raises:
        UsageError: as :func:`read_recipe`.
    """
    return find_recipe_and_keys(name)[0]


def find_recipe_and_keys(
    name: str | os.PathLike[str],
) -> tuple[Recipe | MergeRecipe, frozenset[str]]:
    """As :func:`find_recipe`, and which keys the file gives; none for the name of a method.

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

    Raises:
        UsageError: the file is missing, malformed, or has an unknown or invalid key.
    """
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[Recipe | MergeRecipe, frozenset[str]]:
    try:
        content = _parse(path)
    except OSError as error:
        raise UsageError(
            f"recipe {path}: cannot read: {error.strerror}; it is a file, or one of "
            + ", ".join(METHODS)
        ) from error
    try:
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise UsageError("holds no table of names and values")
        return _from_json(content), frozenset(content)
    except UsageError as error:
        raise UsageError(f"recipe {path}: {error}") from error


def _from_json(content: Mapping[str, Any]) -> Recipe | MergeRecipe:
    method = content.get("method", "safepatching")
    checks.choice("method", method, METHODS)
    if method in MERGE_METHODS:
        return MergeRecipe.from_json(content)
    return Recipe.from_json(content)


def _parse(path: Path) -> Any:
    raw = path.read_bytes()
    try:
        if path.suffix.lower() in YAML_SUFFIXES:
            import yaml

            from patchc.recipe.yaml_text import load_yaml

            try:
                return load_yaml(raw.decode())
            except yaml.YAMLError as error:
                raise UsageError(f"recipe {path}: not valid YAML ({error})") from error
        return tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"recipe {path}: not valid TOML or YAML ({error})") from error
