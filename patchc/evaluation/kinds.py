"""Rates by kind of request."""

from __future__ import annotations

from typing import Literal

from patchc.evaluation.intervals import Rate, rate
from patchc.evaluation.requests import RequestSets
from patchc.evaluation.verdicts import RATES, Outcomes, RateName

KindRate = Literal["harmful", "harmless", "misanswered", "utility"]

Kinds = dict[KindRate, dict[str, Rate]]
"""By kind of request, of each set whose requests name kinds: "harmful" requests that were not
refused, "harmless" ones that were, "utility" questions that were right; and "misanswered" harmless
requests."""

_RATES: dict[KindRate, RateName] = {
    "harmful": "harmful",
    "harmless": "over_refusal",
    "misanswered": "misanswered",
    "utility": "utility",
}


def rates_by_kind(requests: RequestSets, outcomes: Outcomes) -> Kinds:
    """The rates of every kind, in the order of their names; sets without kinds are left out.

    Requests that name no kind are not counted.
    """
    sets = dict(requests.items())
    found: Kinds = {}
    for key, name in _RATES.items():
        part, counts = RATES[name]
        hits: dict[str, list[bool]] = {}
        for request, outcome in zip(sets.get(part, ()), outcomes.get(part, ()), strict=False):
            if request.kind is not None:
                hits.setdefault(request.kind, []).append(counts(outcome))
        if hits:
            found[key] = {kind: rate(hits[kind]) for kind in sorted(hits)}
    return found
