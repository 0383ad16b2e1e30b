"""A search for densities, which have no gradient, by SciPy's global optimiser DIRECT.

For each density that is tried, the scales are fitted; the least validation loss wins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from patchc.errors import UsageError, import_errors
from patchc.recipe import MergeRecipe, Recipe

AnyRecipe = Recipe | MergeRecipe
_RANGE = re.compile(r"([a-z_]+)=(\d*\.?\d+(?:e-?\d+)?):(\d*\.?\d+(?:e-?\d+)?)")
_DIGITS = 3


@dataclass(frozen=True)
class Range:
    """The values of a share to search, on a logarithmic scale.

    Attributes:
        name: "density" of a merge; "retain", "top_se" or "top_osm" of SafePatching, the last two
            for safety enhancement (SE) and over-safety mitigation (OSM). With "retain",
            those two keep their share of it unless they are searched too.
        low, high: above 0, and at most 1.

    Raises:
        UsageError: the bounds are out of range, or not in order.
    """

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high <= 1:
            raise UsageError(
                f"search {self.name}={self.low}:{self.high}; bounds lie above 0 and at most at 1, "
                "the lower one first"
            )

    @classmethod
    def parse(cls, text: str) -> Range:
        """Parse text such as ``density=0.01:0.3``.

        Raises:
            UsageError: the text is no range.
        """
        match = _RANGE.fullmatch(text.strip().replace("-osm", "_osm").replace("-se", "_se"))
        if match is None:
            raise UsageError(f"search {text!r:.80}; write density=0.01:0.3, or retain=0.05:0.4")
        return cls(match[1], float(match[2]), float(match[3]))


def check_ranges(recipe: AnyRecipe, ranges: Sequence[Range]) -> None:
    """Refuse ranges that cannot be searched for a recipe.

    Raises:
        UsageError: a name that the recipe's method does not have, or one given twice.
    """
    merge = isinstance(recipe, MergeRecipe)
    known = ("density",) if merge else ("retain", "top_se", "top_osm")
    names = [one.name for one in ranges]
    for name in names:
        if name not in known or (merge and recipe.to_json()["method"] == "task-arithmetic"):
            raise UsageError(f"{name} cannot be searched for this recipe; {', '.join(known)} can")
    if len(set(names)) != len(names):
        raise UsageError("a share is given two ranges to search; give one")


def search_shares(
    recipe: AnyRecipe, ranges: Sequence[Range], trials: int, loss_of: Callable[[AnyRecipe], float]
) -> AnyRecipe:
    """Find the recipe of least loss in a number of trials, the given recipe among them.

    Shares are searched by their logarithms and rounded to three digits. The same losses give the
    same search, so an interrupted one can continue.

    Raises:
        MissingExtraError: SciPy is not installed.
        and what ``loss_of`` raises.
    """
    with import_errors("a search", "derive"):
        from scipy.optimize import direct
    found: dict[AnyRecipe, float] = {recipe: loss_of(recipe)}

    def try_point(logarithms: Sequence[float]) -> float:
        one = _with_shares(recipe, ranges, [math.exp(value) for value in logarithms])
        if one not in found:
            # DIRECT finishes the round it has begun; points beyond the trials are not fitted.
            found[one] = loss_of(one) if len(found) < trials else math.inf
        return found[one]

    bounds = [(math.log(one.low), math.log(one.high)) for one in ranges]
    if trials > 1:
        direct(try_point, bounds, maxfun=trials - 1, locally_biased=True)
    return min(found, key=lambda one: found[one])


def with_most(recipe: AnyRecipe, ranges: Sequence[Range]) -> AnyRecipe:
    """Return the recipe with the largest shares that a search may try."""
    most = [max(one.high, getattr(recipe, one.name)) for one in ranges]
    return _with_shares(recipe, ranges, most)


def _with_shares(recipe: AnyRecipe, ranges: Sequence[Range], shares: Sequence[float]) -> AnyRecipe:
    values = {
        one.name: min(1.0, float(f"{share:.{_DIGITS}g}"))
        for one, share in zip(ranges, shares, strict=True)
    }
    if isinstance(recipe, Recipe) and "retain" in values and recipe.retain > 0:
        growth = values["retain"] / recipe.retain
        for name in ("top_se", "top_osm"):
            values.setdefault(name, min(1.0, getattr(recipe, name) * growth))
    return recipe.with_changes(**values)
