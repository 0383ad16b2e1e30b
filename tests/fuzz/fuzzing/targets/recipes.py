"""Recipes in TOML and YAML."""

from __future__ import annotations

from dataclasses import fields

from fuzzing.mutation.plain_text import mutate_words_of_kind
from fuzzing.target import Target, expect, stays_json, written
from patchc.recipe import read_recipe, recipe_text
from patchc.recipe.overrides import TensorOverride

_ENDS = (".toml", ".yaml")
_NAMES = ("model.layers.0.mlp.up_proj.weight", "a" * 60, "")


def read(data: bytes) -> None:
    """Read a recipe, write it again, and look for tensors that its overrides match."""
    name = f"recipe{_ENDS[data[0] % 2 if data else 0]}"
    recipe = read_recipe(written(name, data[1:]))
    stays_json(recipe.to_json())
    again = read_recipe(written("again.toml", recipe_text(recipe).encode()))
    expect(again == recipe, "a recipe does not survive")
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        for one in value if isinstance(value, tuple) else ():
            if isinstance(one, TensorOverride):
                any(map(one.matches, _NAMES))


TARGET = Target(
    "recipes",
    read,
    mutate_words_of_kind,
    ("patchc.recipe",),
    executions=2000,
    most_bytes=1 << 12,
)
