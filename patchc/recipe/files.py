"""Recipes from files."""

from __future__ import annotations

import os
import tomllib
from dataclasses import fields
from pathlib import Path

from patchc.errors import UsageError
from patchc.recipe.safepatching import Recipe


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a TOML file whose keys are the names of :class:`Recipe`.

    Raises:
        UsageError: the file is missing, malformed, or has an unknown or invalid key.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"recipe {path}: cannot read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {path}: not valid TOML ({error})") from error
    known = [field.name for field in fields(Recipe)]
    for key in content:
        if key not in known:
            raise UsageError(f"recipe {path}: unknown key {key!r}; known are {', '.join(known)}")
    try:
        return Recipe(**content)
    except UsageError as error:
        raise UsageError(f"recipe {path}: {error}") from error
