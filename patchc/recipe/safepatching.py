"""The parameters of a SafePatching build."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, get_args

from patchc.errors import UsageError
from patchc.recipe import checks
from patchc.recipe.base import BaseRecipe, tensors_excluded, tensors_included
from patchc.recipe.overrides import TensorOverride, read_overrides
from patchc.recipe.parameters import check_values, document_parameters, parameter

Scope = Literal["tensor", "row", "global"]
RankAmong = Literal["retained", "all"]
Score = Literal["weight", "delta", "base-weight", "base-delta"]
SetOperation = Literal["difference", "intersection", "union", "se", "osm"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
RANKED_AMONG: tuple[RankAmong, ...] = get_args(RankAmong)
SCORES: tuple[Score, ...] = get_args(Score)
SET_OPERATIONS: tuple[SetOperation, ...] = get_args(SetOperation)

_NEEDS: dict[str, tuple[str, ...]] = {"se": ("alpha",), "osm": ("beta",)}


@dataclass(frozen=True)
class Override(TensorOverride):
    """Other values for the tensors whose name matches; None keeps the recipe's.

    Attributes:
        match: :class:`regular expression <patchc.recipe.expressions.Expression>` searched for
            anywhere in a tensor's name.
        retain, top_se, top_osm, alpha, beta: as in :class:`Recipe`.

    Raises:
        UsageError: the expression is malformed, a value is invalid, or none is given.
    """

    retain: float | None = None
    top_se: float | None = None
    top_osm: float | None = None
    alpha: float | None = None
    beta: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_values(self, Recipe, self.values())


@document_parameters
@dataclass(frozen=True)
class Recipe(BaseRecipe):
    """How a SafePatching patch is selected and scaled (arXiv 2405.13820).

    It adds a safety-enhancement (SE) and an over-safety-mitigation (OSM) component to the base.
    The defaults are our own, from the sweep recorded in ``docs/reference/defaults.md``; the
    paper gives none.

    Raises:
        UsageError: a parameter is of the wrong type or out of range.
    """

    method = "safepatching"
    methods = (method,)

    retain: float = parameter(
        0.2, checks.share, "Probability p that an entry is retained.", "Per component, in [0, 1]."
    )
    top_se: float = parameter(
        0.15,
        checks.share,
        "Share of entries taken by SE score.",
        "In [0, 1].",
        sweep_help="Share a of entries taken by SE score.",
    )
    top_osm: float = parameter(
        0.15,
        checks.share,
        "Share of entries taken by OSM score.",
        "In [0, 1].",
        sweep_help="Share b of entries taken by OSM score.",
    )
    alpha: float = parameter(5.0, checks.scale, "Scale of the SE delta.", "Finite.", symbol="α")
    beta: float = parameter(4.5, checks.scale, "Scale of the OSM delta.", "Finite.", symbol="β")
    seed: int = parameter(
        0,
        checks.seed,
        "Seed of the retention draws (safepatching, dare).",
        "In [0, 2**64).",
        sweep_help="Seeds of the retention draws.",
    )
    scope: Scope = parameter(
        "tensor",
        partial(checks.choice, choices=SCOPES),
        "What a share is counted in: each tensor, each output row, or all at once.",
        '"global" counts and ranks over all candidates together.',
    )
    rank_among: RankAmong = parameter(
        "retained",
        partial(checks.choice, choices=RANKED_AMONG),
        "Rank the retained entries, or all and then drop those not retained.",
        '"retained" takes the share\'s number of entries from the retained ones. "all" ranks every '
        "entry, combines the top sets as ``sets`` says, and then applies each component only where "
        'it is retained: with "difference", θ + α · (m_SE ⊙ P_SE) on I_SE \\ I_OSM, and so for β.',
    )
    score: Score = parameter(
        "weight",
        partial(checks.choice, choices=SCORES),
        "Scores of the weight or of the delta, on the tuned model or on the base.",
        'The scores of the "weight" are |W ⊙ g|, those of the "delta" |P ⊙ g|; the gradients g are '
        'those of the tuned model, or of the base where the name starts with "base-".',
    )
    sets: SetOperation = parameter(
        "difference",
        partial(checks.choice, choices=SET_OPERATIONS),
        "How the two top sets are combined; se and osm need that component alone.",
        '"difference" applies each component outside the other\'s set, "intersection" both where '
        'the sets meet, "union" each on its whole set, "se" and "osm" that component alone, on its '
        "whole set.",
    )
    rescale: bool = parameter(
        False,
        checks.truth,
        "Divide α and β by p; dare: the weights by the density.",
        shown_default="no; dare: yes",
    )
    least_step: int = parameter(
        1,
        partial(checks.count, below=2**31),
        "Leave out changes of fewer units in the last place.",
        "These entries keep the base's value; 1 keeps every change.",
        sweep_help="Least change, in units in the last place.",
    )
    include: tuple[str, ...] = tensors_included()
    exclude: tuple[str, ...] = tensors_excluded()
    overrides: tuple[Override, ...] = parameter(
        (),
        partial(read_overrides, kind=Override),
        "Other values for some tensors; where several match, the later one wins.",
        sweepable=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scope == "global":
            for override in self.overrides:
                if {"top_se", "top_osm"} & override.values().keys():
                    raise UsageError(
                        f"{override.called} sets a share, and in global scope "
                        "one share is counted over all tensors; override retain, alpha or beta"
                    )

    @cached_property
    def scales_differ(self) -> bool:
        """Whether overrides give tensors other scales, or another p that scales are divided by."""
        scales = {"alpha", "beta", "retain"} if self.rescale else {"alpha", "beta"}
        return any(scales & override.values().keys() for override in self.overrides)

    def unfitted(self, given: Collection[str]) -> tuple[str, ...]:
        """Return the scales that ``sets`` needs and nobody chose.

        Args:
            given: names of the parameters that somebody gave. The values of overrides count too.
        """
        chosen = {*given}.union(*(override.values() for override in self.overrides))
        return tuple(n for n in _NEEDS.get(self.sets, ("alpha", "beta")) if n not in chosen)
