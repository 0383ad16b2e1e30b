"""The parameters of a merge of task vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from patchc.errors import UsageError
from patchc.recipe import checks
from patchc.recipe.base import BaseRecipe, tensors_excluded, tensors_included
from patchc.recipe.overrides import TensorOverride, read_overrides
from patchc.recipe.parameters import MERGE, check_values, document_parameters, parameter

MergeMethod = Literal["task-arithmetic", "dare", "ties", "magnitude"]
MergeScope = Literal["tensor", "global"]

MERGE_METHODS: tuple[MergeMethod, ...] = get_args(MergeMethod)
MERGE_SCOPES: tuple[MergeScope, ...] = get_args(MergeScope)

_DENSITY: dict[str, float] = {"task-arithmetic": 1.0, "dare": 0.5, "ties": 0.2, "magnitude": 0.2}
_RANKED = ("ties", "magnitude")


@dataclass(frozen=True)
class MergeOverride(TensorOverride):
    """Other scales for the tensors whose name matches; None keeps the recipe's.

    Attributes:
        match: :class:`regular expression <patchc.recipe.expressions.Expression>` searched for
            anywhere in a tensor's name.
        weight, lambda_: as in :class:`MergeRecipe`.

    Raises:
        UsageError: the expression is malformed, a value is invalid, or none is given.
    """

    weight: float | tuple[float, ...] | None = None
    lambda_: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_values(self, MergeRecipe, self.values())


def _check_weight(name: str, value: object) -> float | tuple[float, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return checks.scale(name, value)
    if not value:
        raise UsageError(f"{name} is empty; give one number for each tuned model, or one for all")
    weights = tuple(checks.scale(name, one) for one in value)
    return weights if len(weights) > 1 else weights[0]


@document_parameters
@dataclass(frozen=True)
class MergeRecipe(BaseRecipe):
    """How the task vectors τ of one or more tuned models are merged into their base.

    The method "task-arithmetic" (arXiv 2212.04089) adds them; "dare" (2311.03099) keeps each entry
    at random and rescales; "magnitude" keeps the entries of largest |τ|; "ties" (2306.01708) does
    so, elects a sign for every entry and averages the entries that agree.

    Attributes:
        method: which of them.

    Raises:
        UsageError: a parameter is of the wrong type, out of range, or not one of the method's.
    """

    methods = MERGE_METHODS

    method: MergeMethod
    density: float | None = parameter(
        None,
        checks.share,
        "Share of each delta that is kept.",
        "In [0, 1]. None means the method's default; 1 for task-arithmetic, where it is fixed.",
        panel=MERGE,
        shown_default=f"dare {_DENSITY['dare']}, ties and magnitude {_DENSITY['ties']}",
    )
    weight: float | tuple[float, ...] = parameter(
        1.0,
        _check_weight,
        "Scale of each tuned model's delta, in their order, or one for all.",
        "Finite; for ties not negative.",
        panel=MERGE,
        sweep_help="Scale of every delta.",
    )
    lambda_: float = parameter(
        1.0,
        checks.scale,
        "Scale of the merged delta.",
        'Finite. It is "lambda" in files and on the command line.',
        panel=MERGE,
    )
    seed: int = parameter(0, checks.seed, "Seed of dare's draws.", "In [0, 2**64).")
    scope: MergeScope = parameter(
        "tensor",
        partial(checks.choice, choices=MERGE_SCOPES),
        "What the largest |τ| of ties and magnitude are counted over.",
        'Each "tensor", or all tensors of a model together ("global").',
    )
    rescale: bool | None = parameter(
        None, checks.truth, "Divide dare's weights by the density.", "None means that dare does."
    )
    include: tuple[str, ...] = tensors_included()
    exclude: tuple[str, ...] = tensors_excluded()
    overrides: tuple[MergeOverride, ...] = parameter(
        (),
        partial(read_overrides, kind=MergeOverride),
        "Other scales for some tensors; where several match, the later one wins.",
        sweepable=False,
    )

    def __post_init__(self) -> None:
        checks.choice("method", self.method, MERGE_METHODS)
        if self.rescale is None:
            object.__setattr__(self, "rescale", self.method == "dare")
        object.__setattr__(self, "density", self.share)
        super().__post_init__()
        self._check_method()

    @property
    def share(self) -> float:
        """The density, or the method's default."""
        return _DENSITY[self.method] if self.density is None else self.density

    def weights(self, models: int) -> tuple[float, ...]:
        """Return one weight for each of ``models`` tuned models.

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
                _one_each(override.weight, models, f"{override.called}: ")

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values; without overrides there is no key for them."""
        content = super().to_json()
        if not self.overrides:
            del content["overrides"]
        return content

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
                    f"{name} is {getattr(self, name)!r:.80}, and {self.method} has no {name}; "
                    "leave it out, or take another method"
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
