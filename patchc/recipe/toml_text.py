"""Recipes as TOML files, which :func:`patchc.recipe.read_recipe` reads back."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from patchc.errors import OutputError, UsageError
from patchc.escaping import visible
from patchc.files import staged_file
from patchc.output_checks import check_output
from patchc.recipe.find import YAML_SUFFIXES
from patchc.recipe.safepatching import Recipe
from patchc.recipe.task_merge import MergeRecipe

_ALWAYS = ("method", "alpha", "beta", "weight")


def recipe_text(recipe: Recipe | MergeRecipe) -> str:
    """Write a recipe as the text of a TOML file, from which an equal recipe is read.

    The text has the method, its scales (α and β, or the weight), and all that is not the default.

    Raises:
        UsageError: an expression holds half a surrogate pair, which no file can hold.
    """
    content = recipe.to_json()
    overrides = content.pop("overrides", [])
    defaults = type(recipe).from_json({"method": content["method"]}).to_json()
    given = {k: v for k, v in content.items() if k in _ALWAYS or v != defaults[k]}
    tables = [f"\n[[overrides]]\n{_lines(override)}" for override in overrides]
    return _lines(given) + "".join(tables)


def write_recipe(recipe: Recipe | MergeRecipe, path: str | os.PathLike[str]) -> None:
    """Write a recipe as a TOML file; it appears whole or not at all.

    Raises:
        UsageError: the name is one of a YAML file, or as :func:`recipe_text`.
        OutputError: the file exists.
        StorageError: it cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() in YAML_SUFFIXES:
        raise UsageError(f"recipe {path}: it is written as TOML; take a name that ends in .toml")
    text = recipe_text(recipe)
    check_output(path, ())
    if path.is_dir():
        raise OutputError(f"output {path} is a folder and a recipe is a file; name a file")
    with staged_file(path) as staging:
        staging.write_text(text, encoding="utf-8")


def exact_match(name: str) -> str:
    """Return the regular expression that matches one tensor's name and no other."""
    return f"^{re.escape(name)}$"


def _lines(content: dict[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in content.items())


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return _string(value) if isinstance(value, str) else repr(value)


def _string(text: str) -> str:
    # A literal string needs no double backslashes, but cannot hold every text.
    if "\\" in text and "'" not in text and visible(text) == text:
        return f"'{text}'"
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise UsageError(f"{text!r:.80} holds half a surrogate pair; take it out of the expression")
    # JSON escapes as TOML does, and less: a control character, and what a screen would not show.
    written = json.dumps(text, ensure_ascii=False)
    return "".join(one if visible(one) == one else rf"\U{ord(one):08x}" for one in written)
