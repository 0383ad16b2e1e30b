"""Overrides: other values for the tensors whose name matches an expression."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from patchc.errors import UsageError
from patchc.recipe import checks
from patchc.recipe.expressions import expression
from patchc.recipe.parameters import key

Kind = TypeVar("Kind", bound="TensorOverride")


@dataclass(frozen=True)
class TensorOverride:
    """The base class of overrides; the class of each method adds its values.

    Attributes:
        match: :class:`regular expression <patchc.recipe.expressions.Expression>` searched for
            anywhere in a tensor's name.

    Raises:
        UsageError: the expression is malformed or not supported, or no value is given.
    """

    match: str

    def __post_init__(self) -> None:
        if not isinstance(self.match, str):
            raise UsageError(
                f"match is {checks.brief(self.match)}; it must be a regular expression"
            )
        expression(self.match)
        if not self.values():
            raise UsageError(f"{self.called} changes nothing; give it a value")

    @property
    def called(self) -> str:
        """What messages call it."""
        return f"the override for {checks.brief(self.match)}"

    def matches(self, name: str) -> bool:
        """Return whether it is for the tensor of this name."""
        return expression(self.match).matches(name)

    def values(self) -> dict[str, Any]:
        """Return the values that it sets, by their fields' names."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {n: value for n, value in given.items() if n != "match" and value is not None}

    def to_json(self) -> dict[str, Any]:
        """Return the override as JSON values, by its keys in files."""
        values = {key(name): as_json(value) for name, value in self.values().items()}
        return {"match": self.match, **values}


def read_overrides(name: str, value: object, kind: type[Kind]) -> tuple[Kind, ...]:
    """Read overrides from a list of them, or of their tables in files.

    Raises:
        UsageError: it is not such a list, a key is unknown, or a value is invalid.
    """
    if not isinstance(value, list | tuple):
        raise UsageError(f"{name} is {checks.brief(value)}; it must be a list of tables")
    return tuple(one if isinstance(one, kind) else _from_table(one, kind) for one in value)


def values_for(overrides: Iterable[TensorOverride], name: str) -> dict[str, Any]:
    """Return the values for the tensor of this name; where several match, the later one wins."""
    values: dict[str, Any] = {}
    for override in overrides:
        if override.matches(name):
            values |= override.values()
    return values


def as_json(value: Any) -> Any:
    """Return a parameter's value as a JSON value."""
    if isinstance(value, tuple):
        return [one.to_json() if isinstance(one, TensorOverride) else one for one in value]
    return value


def _from_table(content: object, kind: type[Kind]) -> Kind:
    if not isinstance(content, Mapping) or "match" not in content:
        raise UsageError(f"an override is {checks.brief(content)}; it must be a table with a match")
    names = {key(field.name): field.name for field in fields(kind)}
    checks.known_keys(content, list(names))
    return kind(**{names[word]: value for word, value in content.items()})
