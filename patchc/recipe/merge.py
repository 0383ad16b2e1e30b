"""The parameters of a merge of task vectors: validated, serialised into the patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from patchc.errors import UsageError
from patchc.recipe import checks

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
        if not isinstance(self.weight, tuple):
            return (self.weight,) * models
        if len(self.weight) != models:
            raise UsageError(
                f"there are {len(self.weight)} weights for {models} tuned models; give one for "
                "each, or one for all"
            )
        return self.weight

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON values, for a patch's provenance; :meth:`from_json` takes it back."""
        content = {_word(field.name): getattr(self, field.name) for field in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in content.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> MergeRecipe:
        """A recipe from its keys and values; keys that are left out keep their defaults.

        Raises:
            UsageError: no method, an unknown key or an invalid value.
        """
        names = {_word(field.name): field.name for field in fields(cls)}
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
        weights = self.weight if isinstance(self.weight, tuple) else (self.weight,)
        if self.method == "ties" and min(weights) < 0:
            raise UsageError(
                f"a weight is {min(weights)}; ties takes a weighted mean, so none may be negative"
            )


def _word(name: str) -> str:
    return name.rstrip("_")


def _weight(value: object) -> float | tuple[float, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return checks.scale("weight", value)
    if not value:
        raise UsageError("weight is empty; give one number for each tuned model, or one for all")
    weights = tuple(checks.scale("weight", one) for one in value)
    return weights if len(weights) > 1 else weights[0]
