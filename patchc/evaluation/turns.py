"""Fixes that follow one another: rates by category after each, and what a later one forgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from patchc.evaluation.measure import Evaluation
from patchc.evaluation.paired import Change, compare
from patchc.evaluation.rates import Rate, rate
from patchc.evaluation.requests import RequestSets
from patchc.evaluation.verdicts import RATES, Outcome, Outcomes

ALL = "all"
"""The one category of harmful requests that name no kind."""

_, _IS_HARMFUL = RATES["harmful"]


@dataclass(frozen=True)
class Together:
    """Patches that were each made on the base, and are applied to it together.

    Attributes:
        patches: the names of their files.
        roots: their root digests, in hexadecimal.
        model: the name of the model that they give, as in the report's models.
        harmful: for each category, its harmful requests that were not refused.
        over_refusal: harmless requests that were refused.
        utility: questions that were answered rightly; None without such a set.
        changes: how the rates differ from those after the last turn, on the same requests
            (:func:`~patchc.evaluation.paired.compare`).
        changes_by_category: likewise, for each category, the rate of harmful requests.
    """

    patches: tuple[str, ...]
    roots: tuple[str, ...]
    model: str
    harmful: Mapping[str, Rate]
    over_refusal: Rate
    utility: Rate | None
    changes: Mapping[str, Change]
    changes_by_category: Mapping[str, Change]


@dataclass(frozen=True)
class TurnsReport:
    """What a chain of patches does, one patch a turn.

    The rates of ``models``, ``harmful``, ``over_refusal`` and ``utility`` begin with the base, so
    that there is one more of them than of the patches.

    Attributes:
        patches: the names of the patch files, in their order.
        roots: their root digests, in hexadecimal.
        categories: the kinds of the harmful requests, sorted; "all" alone if none names a kind.
            Requests without a kind, beside others with one, are in no category.
        models: the names of the base and of the model after each turn, as in the report's models.
        harmful: for each category, its harmful requests that were not refused.
        over_refusal: harmless requests that were refused.
        utility: questions that were answered rightly; None without such a set.
        changes: for each turn, how the rates differ from those before it, on the same requests
            (:func:`~patchc.evaluation.paired.compare`).
        forgetting: for each category, the best refusal rate before the last turn, the base's
            included, minus the refusal rate after it (Chaudhry et al. 2018, equation 3, there from
            the first turn on). Below zero, the last turn refuses more than any model before it.
        forgetting_changes: for each category, the rate of harmful requests after the last turn
            compared with that of the model that forgetting is counted from (the first of equals).
            The difference is the forgetting. The interval and p-value take no account of
            choosing the best of several turns.
        together: what patches that were each made on the base do together; None if none are given.
    """

    patches: tuple[str, ...]
    roots: tuple[str, ...]
    categories: tuple[str, ...]
    models: tuple[str, ...]
    harmful: tuple[Mapping[str, Rate], ...]
    over_refusal: tuple[Rate, ...]
    utility: tuple[Rate | None, ...]
    changes: tuple[Mapping[str, Change], ...]
    forgetting: Mapping[str, float]
    forgetting_changes: Mapping[str, Change]
    together: Together | None = None


@dataclass(frozen=True)
class PatchNames:
    """Patch files: their names in a report, and their root digests in hexadecimal."""

    names: tuple[str, ...]
    roots: tuple[str, ...]


def describe_turns(
    given: PatchNames,
    measured: Sequence[Evaluation],
    requests: RequestSets,
    together: tuple[PatchNames, Evaluation] | None = None,
) -> TurnsReport:
    """Count by category what was measured on a chain of patches.

    Args:
        given: the patches, in their order.
        measured: the base, then the model after each patch, with the outcomes of all requests.
        requests: what all were asked.
        together: the patches that were applied to the base together, and what that gave.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    members = _members(requests)
    matrix = [_harmful_by_category(one, members) for one in measured]
    before, last = matrix[:-1], matrix[-1]
    # The harmful rate is one minus the refusal rate: the most refused is the least harmful.
    best = {
        name: min(range(len(before)), key=lambda turn: before[turn][name].value) for name in members
    }
    return TurnsReport(
        patches=given.names,
        roots=given.roots,
        categories=tuple(members),
        models=tuple(one.model for one in measured),
        harmful=tuple(matrix),
        over_refusal=tuple(one.over_refusal for one in measured),
        utility=tuple(one.utility for one in measured),
        changes=tuple(
            compare(earlier.outcomes, later.outcomes) for earlier, later in pairwise(measured)
        ),
        forgetting={name: last[name].value - before[best[name]][name].value for name in members},
        forgetting_changes={
            name: _change(measured[best[name]], measured[-1], places)
            for name, places in members.items()
        },
        together=_describe_together(*together, measured[-1], members) if together else None,
    )


def _describe_together(
    given: PatchNames, found: Evaluation, last: Evaluation, members: Mapping[str, Sequence[int]]
) -> Together:
    return Together(
        patches=given.names,
        roots=given.roots,
        model=found.model,
        harmful=_harmful_by_category(found, members),
        over_refusal=found.over_refusal,
        utility=found.utility,
        changes=compare(last.outcomes, found.outcomes),
        changes_by_category={
            name: _change(last, found, places) for name, places in members.items()
        },
    )


def _members(requests: RequestSets) -> dict[str, list[int]]:
    """The numbers of each category's harmful requests."""
    found: dict[str, list[int]] = {}
    for number, request in enumerate(requests.harmful):
        if request.kind is not None:
            found.setdefault(request.kind, []).append(number)
    return dict(sorted(found.items())) or {ALL: [*range(len(requests.harmful))]}


def _harmful_by_category(
    found: Evaluation, members: Mapping[str, Sequence[int]]
) -> dict[str, Rate]:
    return {name: rate(map(_IS_HARMFUL, _some(found, places))) for name, places in members.items()}


def _change(before: Evaluation, after: Evaluation, places: Sequence[int]) -> Change:
    earlier: Outcomes = {"harmful": _some(before, places)}
    later: Outcomes = {"harmful": _some(after, places)}
    return compare(earlier, later)["harmful"]


def _some(found: Evaluation, places: Sequence[int]) -> list[Outcome]:
    return [found.outcomes["harmful"][place] for place in places]
