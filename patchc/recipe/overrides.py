"""Other values for the tensors whose name matches: what the overrides of all recipes share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeVar

from patchc.errors import UsageError
from patchc.recipe import checks

Kind = TypeVar("Kind", bound="TensorOverride")


@dataclass(frozen=True)
class TensorOverride:
    """An expression over tensor names; a method's own override adds the values.

    Attributes:
        match: regular expression over tensor names, with :func:`re.search` semantics.

    Raises:
        UsageError: the expression is malformed, or no value is given.
    """

    match: str

    def __post_init__(self) -> None:
        if not isinstance(self.match, str):
            raise UsageError(f"match is {self.match!r}; it must be a regular expression")
        try:
            _ = self._expression
        except (re.error, OverflowError, RecursionError) as error:
            raise UsageError(f"{self.match!r} is not a regular expression ({error})") from error
        if not self.values():
            raise UsageError(f"the override for {self.match!r} changes nothing; give it a value")

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        # Kept here, since the re module forgets all but 512 expressions.
        return re.compile(self.match)

    def matches(self, name: str) -> bool:
        """Whether it is for the tensor of this name."""
        return self._expression.search(name) is not None

    def values(self) -> dict[str, Any]:
        """The values that it sets, by their fields' names."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {n: value for n, value in given.items() if n != "match" and value is not None}

    def to_json(self) -> dict[str, Any]:
        """The override as JSON values, by its keys in files."""
        values = {word(name): value for name, value in self.values().items()}
        return {"match": self.match, **{k: plain(value) for k, value in values.items()}}


def read_overrides(value: object, kind: type[Kind]) -> tuple[Kind, ...]:
    """Overrides of a kind from a list of them, or of their tables in files.

    Raises:
        UsageError: it is no such list, a key is unknown, or a value is invalid.
    """
    if not isinstance(value, list | tuple):
        raise UsageError(f"overrides is {value!r}; it must be a list of tables")
    return tuple(one if isinstance(one, kind) else _from_table(one, kind) for one in value)


def values_for(overrides: Iterable[TensorOverride], name: str) -> dict[str, Any]:
    """The values for the tensor of this name, by their fields' names; of several the later wins."""
    values: dict[str, Any] = {}
    for override in overrides:
        if override.matches(name):
            values |= override.values()
    return values


def word(name: str) -> str:
    """A field's key in files."""
    return name.rstrip("_")


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def _from_table(content: object, kind: type[Kind]) -> Kind:
    if not isinstance(content, Mapping) or "match" not in content:
        raise UsageError(f"an override is {content!r}; it must be a table with a match")
    names = {word(field.name): field.name for field in fields(kind)}
    checks.known_keys(content, list(names))
    return kind(**{names[key]: value for key, value in content.items()})
