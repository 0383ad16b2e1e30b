"""The base class of recipes: overrides for single tensors, and the form as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields, replace
from functools import cached_property, partial
from typing import Any, ClassVar, Self

from patchc.errors import UsageError
from patchc.recipe import checks
from patchc.recipe.overrides import as_json, values_for
from patchc.recipe.parameters import check_values, key, parameter, parameters

tensors_included = partial(
    parameter,
    (),
    checks.expressions,
    "Only tensors whose name matches this regular expression; may be repeated.",
    "Without any, every tensor that can takes part.",
    sweepable=False,
)
tensors_excluded = partial(
    parameter,
    (),
    checks.expressions,
    "No tensors whose name matches this regular expression; may be repeated.",
    sweepable=False,
)


class BaseRecipe:
    """A frozen dataclass of parameters, checked when it is made."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    methods: ClassVar[tuple[str, ...]]
    method: str

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in parameters(type(self))}
        check_values(self, type(self), given)

    def for_tensor(self, name: str) -> Self:
        """Return the recipe for one tensor: the values of overrides that match its name apply."""
        if name not in self._by_tensor:
            values = values_for(vars(self)["overrides"], name)
            self._by_tensor[name] = replace(self, overrides=(), **values) if values else self
        return self._by_tensor[name]

    @cached_property
    def _by_tensor(self) -> dict[str, Self]:
        # A build asks for the same tensors again and again.
        return {}

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values, for a patch's provenance."""
        values = {key(one.name): as_json(getattr(self, one.name)) for one in fields(self)}
        return {"method": self.method, **values}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Make a recipe from its keys and values; keys that are left out keep their defaults.

        Raises:
            UsageError: an unknown key, an invalid value, or another method's recipe.
        """
        names = {key(one.name): one.name for one in fields(cls)}
        given = dict(content)
        if "method" not in names:
            checks.choice("method", given.pop("method", cls.method), cls.methods)
        elif "method" not in given:
            raise UsageError(f"method is missing; it must be one of {', '.join(cls.methods)}")
        checks.known_keys(given, list(names))
        return cls(**{names[word]: value for word, value in given.items()})

    def with_changes(self, **changes: Any) -> Self:
        """Return a copy with those of ``changes`` that are not None."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})
