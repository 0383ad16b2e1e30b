"""The parameters of a merge of task vectors: validated, serialised into the patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from patchc.errors import UsageError
from patchc.recipe import checks
from patchc.recipe.overrides import TensorOverride, plain, read_overrides, values_for, word

MergeMethod = Literal["task-arithmetic", "dare", "ties", "magnitude"]
MergeScope = Literal["tensor", "global"]

MERGE_METHODS: tuple[MergeMethod, ...] = get_args(MergeMethod)
MERGE_SCOPES: tuple[MergeScope, ...] = get_args(MergeScope)

_DENSITY: dict[str, float] = {
    "task-arithmetic": 1.0,
    "dare": 0.5,
    "ties": 0.2,
    "magnitude": 0.2,
}
_RANKED = ("ties", "magnitude")


@dataclass(frozen=True)
class MergeOverride(TensorOverride):
    """Other factors for the tensors whose name matches; None keeps the recipe's.

    Attributes:
        match: regular expression over tensor names, with :func:`re.search` semantics.
        weight, lambda_: as in :class:`MergeRecipe`.

    Raises:
        UsageError: the expression is malformed, a value is invalid, or none is given.
    """

    weight: float | tuple[float, ...] | None = None
    lambda_: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight is not None:
            object.__setattr__(self, "weight", _weight(self.weight))
        if self.lambda_ is not None:
            object.__setattr__(self, "lambda_", checks.scale("lambda", self.lambda_))


@dataclass(frozen=True)
class MergeRecipe:
    """How the task vectors τ of one or more tuned models are merged into their base.

    "task-arithmetic" (arXiv 2212.04089) adds them; "dare" (2311.03099) keeps each entry at random
    and rescales; "magnitude" keeps the entries of largest |τ|; "ties" (2306.01708) does so, elects
    a sign for every entry and averages the entries that agree.

    Attributes:
        method: one of the four.
        density: share of the entries of each τ that is kept, in [0, 1]; None means the method's
            default: 1 (task-arithmetic, where it is fixed), 0.5 (dare), 0.2 (ties, magnitude).
        weight: factor of each τ, one number a tuned model, or one for all; finite, for ties not
            negative.
        lambda_: factor of the merged delta; finite. "lambda" in files and on the command line.
        seed: 64-bit seed of dare's draws.
        scope: what the largest |τ| of ties and magnitude are counted over: each "tensor", or all
            tensors of a model together ("global").
        rescale: divide dare's weights by the density; None means that dare does.
        include: regular expressions; only matching tensors take part (empty: all floats).
        exclude: regular expressions; matching tensors take no part.
        overrides: other factors for some tensors; where several match, the later one wins.

    Raises:
        UsageError: a parameter is of the wrong type, out of range, or not one of the method's.
    """

    method: MergeMethod
    density: float | None = None
    weight: float | tuple[float, ...] = 1.0
    lambda_: float = 1.0
    seed: int = 0
    scope: MergeScope = "tensor"
    rescale: bool | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    overrides: tuple[MergeOverride, ...] = ()

    def __post_init__(self) -> None:
        checks.choice("method", self.method, MERGE_METHODS)
        checks.choice("scope", self.scope, MERGE_SCOPES)
        checks.seed(self.seed)
        rescale = self.method == "dare" if self.rescale is None else self.rescale
        if not isinstance(rescale, bool):
            raise UsageError(f"rescale is {rescale!r}; it must be true or false")
        checked = {
            "density": checks.share("density", self.share),
            "weight": _weight(self.weight),
            "lambda_": checks.scale("lambda", self.lambda_),
            "rescale": rescale,
            "include": checks.expressions("include", self.include),
            "exclude": checks.expressions("exclude", self.exclude),
            "overrides": read_overrides(self.overrides, MergeOverride),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_method()

    @property
    def share(self) -> float:
        """The density, the method's default worked in."""
        return _DENSITY[self.method] if self.density is None else self.density

    def weights(self, models: int) -> tuple[float, ...]:
        """One weight for each of ``models`` tuned models.

        Raises:
            UsageError: the recipe has another number of them.
        """
        return _one_each(self.weight, models, "")

    def check_models(self, models: int) -> None:
        """Check that there are weights for ``models`` tuned models, in the overrides as well.

        Raises:
            UsageError: there is another number of them.
        """
        self.weights(models)
        for override in self.overrides:
            if override.weight is not None:
                _one_each(override.weight, models, f"the override for {override.match!r}: ")

    def for_tensor(self, name: str) -> MergeRecipe:
        """The recipe with the overrides that match a tensor name worked in."""
        values = values_for(self.overrides, name)
        return replace(self, overrides=(), **values) if values else self

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON values, for a patch's provenance; :meth:`from_json` takes it back.

        Without overrides it has no key for them.
        """
        content = {word(field.name): plain(getattr(self, field.name)) for field in fields(self)}
        del content["overrides"]
        if self.overrides:
            content["overrides"] = [one.to_json() for one in self.overrides]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> MergeRecipe:
        """A recipe from its keys and values; keys that are left out keep their defaults.

        Raises:
            UsageError: no method, an unknown key or an invalid value.
        """
        names = {word(field.name): field.name for field in fields(cls)}
        checks.known_keys(content, list(names))
        if "method" not in content:
            raise UsageError(f"method is missing; it must be one of {', '.join(MERGE_METHODS)}")
        return cls(**{names[key]: value for key, value in content.items()})

    def with_changes(self, **changes: Any) -> MergeRecipe:
        """A copy with those of ``changes`` that are not None."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})

    def _check_method(self) -> None:
        foreign = {
            "density": self.method == "task-arithmetic" and self.density != 1,
            "seed": self.method != "dare" and self.seed != 0,
            "rescale": self.method != "dare" and self.rescale,
            "scope": self.method not in _RANKED and self.scope != "tensor",
        }
        for name, given in foreign.items():
            if given:
                raise UsageError(
                    f"{name} is {getattr(self, name)!r}, and {self.method} has no {name}; leave "
                    "it out, or take another method"
                )
        if self.method == "ties":
            for weight in (self.weight, *(one.weight for one in self.overrides)):
                lowest = min(weight) if isinstance(weight, tuple) else weight
                if lowest is not None and lowest < 0:
                    raise UsageError(
                        f"a weight is {lowest}; ties takes a weighted mean, so none may be negative"
                    )


def _one_each(weight: float | tuple[float, ...], models: int, where: str) -> tuple[float, ...]:
    if not isinstance(weight, tuple):
        return (weight,) * models
    if len(weight) != models:
        raise UsageError(
            f"{where}there are {len(weight)} weights for {models} tuned models; give one for "
            "each, or one for all"
        )
    return weight


def _weight(value: object) -> float | tuple[float, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return checks.scale("weight", value)
    if not value:
        raise UsageError("weight is empty; give one number for each tuned model, or one for all")
    weights = tuple(checks.scale("weight", one) for one in value)
    return weights if len(weights) > 1 else weights[0]
