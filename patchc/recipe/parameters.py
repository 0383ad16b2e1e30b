"""Parameters of recipes: each one is stated once, as a field of its recipe's class.

The statement is the call of :func:`parameter` beside the field's name and type. The checks, the
documentation of the class, and the options of ``patchc build`` and ``patchc sweep`` come from it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ParamSpec, TypeVar

Check = Callable[[str, Any], Any]
"""Takes a parameter's key and a value; returns the value to store, or raises a UsageError."""

Given = ParamSpec("Given")
Kind = TypeVar("Kind")

SELECTION = "Selection"
MERGE = "Merge"


@dataclass(frozen=True)
class Parameter:
    """The statement of a parameter; its name and type are the field's.

    Attributes:
        default: the value where none is given.
        check: refuses values of the wrong type or out of range.
        help: one sentence, which the help of ``patchc build`` shows.
        detail: what the docstring of the class adds.
        panel: heading above the option in the help.
        shown_default: the default as the help shows it, where ``default`` does not tell it.
        sweep_help: what the help of ``patchc sweep`` shows, where it differs.
        symbol: the paper's letter for it, for messages.
        sweepable: whether a sweep can vary it.
    """

    default: Any
    check: Check
    help: str
    detail: str = ""
    panel: str = SELECTION
    shown_default: str = ""
    sweep_help: str = ""
    symbol: str = ""
    sweepable: bool = True


def _as_field(statement: Callable[Given, Parameter]) -> Callable[Given, Any]:
    def make(*values: Given.args, **named: Given.kwargs) -> Any:
        stated = statement(*values, **named)
        return field(default=stated.default, metadata={"parameter": stated})

    return make


parameter = _as_field(Parameter)
"""Make a dataclass field from what :class:`Parameter` takes."""


def parameters(recipe: type[Any]) -> dict[str, Parameter]:
    """Return the parameters of a recipe's class, by the names of their fields."""
    found = {one.name: one.metadata.get("parameter") for one in fields(recipe)}
    return {name: stated for name, stated in found.items() if stated}


def document_parameters(recipe: type[Kind]) -> type[Kind]:
    """Write the parameters into the docstring of a recipe's class, before what it raises."""
    text = recipe.__doc__ or ""
    lines = [] if "Attributes:" in text else ["    Attributes:"]
    for name, stated in parameters(recipe).items():
        told = f"{name}: {stated.help} {stated.detail}"
        lines += textwrap.wrap(told, 100, initial_indent=8 * " ", subsequent_indent=12 * " ")
    before, raises, after = text.partition("\n    Raises:")
    blank = "" if "Attributes:" in text else "\n"
    recipe.__doc__ = before + blank + "\n".join(lines) + "\n" + raises + after
    return recipe


def check_values(owner: object, recipe: type[Any], values: Mapping[str, Any]) -> None:
    """Check values by the parameters of a recipe's class, and store them in ``owner``.

    Raises:
        UsageError: one is of the wrong type or out of range.
    """
    stated = parameters(recipe)
    for name, value in values.items():
        object.__setattr__(owner, name, stated[name].check(key(name), value))


def key(name: str) -> str:
    """Return the key of a field in files: ``lambda`` for ``lambda_``."""
    return name.rstrip("_")
