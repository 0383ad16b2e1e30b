"""Recipes from TOML and YAML files."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from patchc.errors import UsageError
from patchc.recipe.safepatching import Recipe

_YAML = (".yaml", ".yml")


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a file whose keys are the names of :class:`Recipe`: YAML by its suffix, else TOML.

    Raises:
        UsageError: the file is missing, malformed, or has an unknown or invalid key.
    """
    path = Path(path)
    try:
        content = _parse(path)
    except OSError as error:
        raise UsageError(f"recipe {path}: cannot read: {error.strerror}") from error
    try:
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise UsageError("holds no table of names and values")
        return Recipe.from_json(content)
    except UsageError as error:
        raise UsageError(f"recipe {path}: {error}") from error


def _parse(path: Path) -> Any:
    raw = path.read_bytes()
    try:
        if path.suffix.lower() in _YAML:
            import yaml

            try:
                return yaml.safe_load(raw.decode())
            except yaml.YAMLError as error:
                raise UsageError(f"recipe {path}: not valid YAML ({error})") from error
        return tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"recipe {path}: not valid TOML or YAML ({error})") from error
