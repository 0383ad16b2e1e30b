"""The parameters of a SafePatching build: validated, serialised into the patch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, get_args

from patchc.errors import UsageError
from patchc.recipe import checks
from patchc.recipe.overrides import TensorOverride, read_overrides, values_for

Scope = Literal["tensor", "row", "global"]
RankAmong = Literal["retained", "all"]
Score = Literal["weight", "delta", "base-weight", "base-delta"]
SetOperation = Literal["difference", "intersection", "union", "se", "osm"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
RANKED_AMONG: tuple[RankAmong, ...] = get_args(RankAmong)
SCORES: tuple[Score, ...] = get_args(Score)
SET_OPERATIONS: tuple[SetOperation, ...] = get_args(SetOperation)

_SHARES = ("retain", "top_se", "top_osm")
_SCALES = ("alpha", "beta")
_NEEDS: dict[str, tuple[str, ...]] = {"se": ("alpha",), "osm": ("beta",)}
_CHOICES: dict[str, tuple[str, ...]] = {
    "scope": SCOPES,
    "rank_among": RANKED_AMONG,
    "score": SCORES,
    "sets": SET_OPERATIONS,
}


@dataclass(frozen=True)
class Override(TensorOverride):
    """Other values for the tensors whose name matches; None keeps the recipe's.

    Attributes:
        match: regular expression over tensor names, with :func:`re.search` semantics.
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
        _check_numbers(self, allow_none=True)


@dataclass(frozen=True)
class Recipe:
    """How a SafePatching patch is selected and scaled (arXiv 2405.13820).

    Attributes:
        retain: probability p that an entry is retained, per component, in [0, 1].
        top_se: share a of entries taken by SE score, in [0, 1].
        top_osm: share b of entries taken by OSM score, in [0, 1].
        alpha: scale α of the safety-enhancement delta; finite.
        beta: scale β of the over-safety-mitigation delta; finite.
        seed: 64-bit seed of the retention draws.
        scope: what a share is counted in and ranked over: each "tensor", each output "row" of a
            tensor, or all candidates together ("global").
        rank_among: "retained" takes the share's number of entries from the retained ones; "all"
            ranks every entry, combines the top sets as ``sets`` says, and then applies each
            component only where it is retained: with "difference", θ + α · (m_SE ⊙ P_SE) on
            I_SE \\ I_OSM, and so for β.
        score: which scores rank: of the "weight" |W ⊙ g| or the "delta" |P ⊙ g|, with gradients of
            the tuned model, or of the base where the name starts with "base-".
        sets: what becomes of the two top sets. "difference" applies each component outside the
            other's set; "intersection" both where the sets meet; "union" each on its whole set;
            "se" and "osm" that component alone, on its whole set.
        rescale: divide α and β by p.
        least_step: entries that the merge would move by fewer units in the last place keep the
            base's value; 1 keeps every change.
        include: regular expressions; only matching tensors take part (empty: all with scores).
        exclude: regular expressions; matching tensors take no part.
        overrides: other values for some tensors; where several match, the later one wins.

    The defaults are our own, from the sweep recorded in ``docs/defaults.md``; the paper gives none.

    Raises:
        UsageError: a parameter is of the wrong type or out of range.
    """

    retain: float = 0.2
    top_se: float = 0.15
    top_osm: float = 0.15
    alpha: float = 5.0
    beta: float = 4.5
    seed: int = 0
    scope: Scope = "tensor"
    rank_among: RankAmong = "retained"
    score: Score = "weight"
    sets: SetOperation = "difference"
    rescale: bool = False
    least_step: int = 1
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    overrides: tuple[Override, ...] = ()

    def __post_init__(self) -> None:
        _check_numbers(self, allow_none=False)
        checks.seed(self.seed)
        for name, choices in _CHOICES.items():
            checks.choice(name, getattr(self, name), choices)
        if not isinstance(self.rescale, bool):
            raise UsageError(f"rescale is {self.rescale!r}; it must be true or false")
        if type(self.least_step) is not int or not 1 <= self.least_step < 2**31:
            raise UsageError(
                f"least_step is {self.least_step!r}; it must be a whole number of at least 1"
            )
        for name in ("include", "exclude"):
            object.__setattr__(self, name, checks.expressions(name, getattr(self, name)))
        object.__setattr__(self, "overrides", read_overrides(self.overrides, Override))
        if self.scope == "global":
            for override in self.overrides:
                if {"top_se", "top_osm"} & override.values().keys():
                    raise UsageError(
                        f"the override for {override.match!r} sets a share, and in global scope "
                        "one share is counted over all tensors; override retain, alpha or beta"
                    )

    def for_tensor(self, name: str) -> Recipe:
        """The recipe with the overrides that match a tensor name worked in."""
        if name not in self._by_tensor:
            values = values_for(self.overrides, name)
            found = replace(self, overrides=(), **values) if values else self
            self._by_tensor[name] = found
        return self._by_tensor[name]

    @cached_property
    def _by_tensor(self) -> dict[str, Recipe]:
        """What was found for each tensor: a build asks for the same ones again and again."""
        return {}

    @cached_property
    def scales_differ(self) -> bool:
        """Whether overrides give tensors scales of their own, p worked in where it rescales."""
        scales = {"alpha", "beta", "retain"} if self.rescale else {"alpha", "beta"}
        return any(scales & override.values().keys() for override in self.overrides)

    def unfitted(self, given: Collection[str]) -> tuple[str, ...]:
        """The scales that ``sets`` needs and nobody chose.

        Args:
            given: the names of the parameters that were given; overrides count of themselves.
        """
        chosen = {*given}.union(*(override.values() for override in self.overrides))
        return tuple(name for name in _NEEDS.get(self.sets, _SCALES) if name not in chosen)

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON values, for a patch's provenance; :meth:`from_json` takes it back."""
        overrides = [one.to_json() for one in self.overrides]
        content = {**asdict(self), "overrides": overrides}
        lists = {name: list(content[name]) for name in ("include", "exclude")}
        return {"method": "safepatching", **content, **lists}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Recipe:
        """A recipe from its keys and values; keys that are left out keep their defaults.

        Raises:
            UsageError: an unknown key or an invalid value, or another method's recipe.
        """
        checks.choice("method", content.get("method", "safepatching"), ("safepatching",))
        known = [field.name for field in fields(cls)]
        given = {key: value for key, value in content.items() if key != "method"}
        checks.known_keys(given, known)
        return cls(**given)

    def with_changes(self, **changes: Any) -> Recipe:
        """A copy with those of ``changes`` that are not None."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})


def _check_numbers(owner: Recipe | Override, *, allow_none: bool) -> None:
    for names, check in ((_SHARES, checks.share), (_SCALES, checks.scale)):
        for name in names:
            value = getattr(owner, name)
            if value is not None or not allow_none:
                object.__setattr__(owner, name, check(name, value))
