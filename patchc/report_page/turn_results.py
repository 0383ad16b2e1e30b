"""What ``evaluate --turns`` printed: rates after each patch of a chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from patchc.evaluation.paired import Change
from patchc.evaluation.rates import Rate
from patchc.report_page.checked_values import (
    change,
    difference,
    digest,
    listed,
    named,
    optional,
    rate,
    text,
)


@dataclass(frozen=True)
class Turn:
    """The base, or the model after a patch: harmful rates by category, and the other rates."""

    name: str
    harmful: Mapping[str, Rate]
    over_refusal: Rate
    utility: Rate | None


@dataclass(frozen=True)
class TurnResults:
    """A chain of patches.

    Attributes:
        source: the file's name.
        patches, roots: the names and roots of its patches.
        categories: of harmful requests.
        turns: the base, and the model after each patch.
        forgetting: for each category, the best refusal rate at an earlier turn minus the final one.
        forgetting_changes: the same as changes of the harmful rate, where the file has them.
        together: all components derived on the base and added, where that was measured.
    """

    source: str
    patches: tuple[str, ...]
    roots: tuple[str, ...]
    categories: tuple[str, ...]
    turns: tuple[Turn, ...]
    forgetting: Mapping[str, float]
    forgetting_changes: Mapping[str, Change]
    together: Turn | None


def read_turns(content: Any, source: str) -> TurnResults:
    """Read the turns of what ``evaluate --json`` printed.

    Raises:
        the errors of :mod:`~patchc.report_page.checked_values`: they are damaged.
    """
    patches, categories = listed(text, content["patches"]), listed(text, content["categories"])
    harmful = listed(lambda one: named(rate, one), content["harmful"])
    over_refusal = listed(rate, content["over_refusal"])
    utility = listed(lambda one: optional(rate, one), content["utility"])
    roots = listed(digest, content["roots"])
    names = ("base", *(f"{place}. {name}" for place, name in enumerate(patches, start=1)))
    turns = tuple(map(Turn, names, harmful, over_refusal, utility))
    if len(roots) != len(patches):
        raise ValueError("there are other numbers of roots than of patches")
    if not len(names) == len(harmful) == len(over_refusal) == len(utility):
        raise ValueError("the turns have other numbers of rates than of patches")
    if any(set(one) != set(categories) for one in harmful):
        raise ValueError("a turn has rates of other categories")
    return TurnResults(
        source,
        patches,
        roots,
        categories,
        turns,
        named(difference, content["forgetting"]),
        named(change, content.get("forgetting_changes") or {}),
        optional(_together, content.get("together")),
    )


def _together(content: Any) -> Turn:
    return Turn(
        "all on the base, together",
        named(rate, content["harmful"]),
        rate(content["over_refusal"]),
        optional(rate, content["utility"]),
    )
