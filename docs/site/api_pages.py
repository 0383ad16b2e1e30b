"""Pages of the Python API: a directive for every public name, which mkdocstrings fills in."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

Test = Callable[[str, Any], bool]

_GROUPS: dict[str, Test] = {
    "Functions": lambda _name, value: inspect.isroutine(value),
    "Reports": lambda name, _value: name.endswith("Report"),
    "Options and recipes": lambda name, _value: name.endswith(("Options", "Recipe", "Override")),
    "Errors": lambda _name, value: isinstance(value, type) and issubclass(value, Exception),
    "Other types": lambda _name, _value: True,
}


def api_page(module_name: str) -> str:
    """The page of a module: its docstring, then every name of its ``__all__``, by groups."""
    module = import_module(module_name)
    parts = [f"# {module_name}", f"::: {module_name}\n    options:\n      members: []"]
    for title, names in grouped(module).items():
        parts.append(f"## {title}")
        parts += [f"::: {base}" for base in _bases(module, names)]
        parts += [f"::: {module_name}.{name}" for name in names]
    return "\n\n".join(parts) + "\n"


def public_names(module_name: str) -> list[str]:
    """The names of a module's ``__all__`` that have a page entry."""
    return [name for name in import_module(module_name).__all__ if not name.startswith("__")]


def _bases(module: ModuleType, names: list[str]) -> list[str]:
    """The classes that these names share and that have no public name, each once."""
    values = [getattr(module, name) for name in names]
    found = [
        f"{base.__module__}.{base.__qualname__}"
        for value in values
        if isinstance(value, type)
        for base in value.__mro__[1:]
        if base.__module__.startswith("patchc") and base.__name__ not in module.__all__
    ]
    return list(dict.fromkeys(found))


def grouped(module: ModuleType) -> dict[str, list[str]]:
    """The public names by group; each is in the first that takes it."""
    found: dict[str, list[str]] = {title: [] for title in _GROUPS}
    for name in public_names(module.__name__):
        value = getattr(module, name)
        title = next(title for title, takes in _GROUPS.items() if takes(name, value))
        found[title].append(name)
    return {title: names for title, names in found.items() if names}
