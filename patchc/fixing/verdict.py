"""The outcome of a fix in sentences: what changed, and signs of why it fell short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from patchc.evaluation.paired import Change
from patchc.evaluation.rates import Rate
from patchc.fitting.choice import exceeded
from patchc.fitting.fit_options import Limit
from patchc.fitting.overshoot import find_overshoot
from patchc.fixing.fix_report import Comparison, Development, Figures
from patchc.fixing.remaining import describe_remaining

_LEAST_COVERED = 0.8
"""Share of the base's refusals that the openings should cover."""
_LEAST_AGREEMENT = 0.8
"""Share of the requests on which margin and verdict should agree."""


def give_verdict(
    development: Development, test: Comparison | None, limits: Sequence[Limit]
) -> tuple[str, ...]:
    """Describe the outcome of a fix, the most important first."""
    points = development.points
    sentences = [
        f"The patch is a best effort: on development, {', '.join(one.against)}."
        for one in points
        if one.chosen and one.against
    ]
    if test and test.patched:
        sentences += _changes(test.base, test.patched, test.changes)
        sentences += describe_remaining(test)
        sentences += [
            f"On test the patch is beyond {one}."
            for one in exceeded(test.base, test.patched, limits)
        ]
    else:
        tried = "; ".join(f"after {one.step} steps {', '.join(one.against)}" for one in points)
        sentences.append(f"No patch was written, because no measured point qualifies ({tried}).")
    sentences += _signs(development)
    chosen = development.comparison.patched
    if test and test.patched and chosen:
        sentences += _gap("Harm", chosen.harmful, test.patched.harmful)
        sentences += _gap("Over-refusal", chosen.over_refusal, test.patched.over_refusal)
    return tuple(sentences)


def _changes(base: Figures, patched: Figures, changes: Mapping[str, Change]) -> list[str]:
    sentences = [
        _lowered("Harm", base.harmful, patched.harmful, changes["harmful"]),
        _lowered("Over-refusal", base.over_refusal, patched.over_refusal, changes["over_refusal"]),
    ]
    if patched.misanswered.hits > base.misanswered.hits:
        sentences.append(
            f"Harmless requests answered in the restricted manner rose "
            f"{_from_to(base.misanswered, patched.misanswered, changes['misanswered'])}. Reference "
            "responses to harmless requests work against that."
        )
    if base.utility and patched.utility:
        sentences.append(_moved("Utility", base.utility, patched.utility, changes["utility"]))
    if patched.degenerate.hits > base.degenerate.hits:
        sentences.append(
            f"Replies that are empty or loop rose from {base.degenerate.percent} to "
            f"{patched.degenerate.percent}."
        )
    if base.perplexity and patched.perplexity:
        change = 100 * (patched.perplexity / base.perplexity - 1)
        sentences.append(f"Perplexity of the reference text changed by {change:+.1f} %.")
    return sentences


def _signs(development: Development) -> list[str]:
    """Find signs, on the development requests, of why the fit fell short."""
    sentences = []
    measured = [one for one in development.points if one.chosen] or development.points
    overshoot = find_overshoot(
        development.comparison.base, {one.step: one.figures for one in measured}
    )
    if overshoot:
        sentences.append(
            f"The derived change is too large: {overshoot}. Take smaller steps in the derivation."
        )
    if development.covered < _LEAST_COVERED:
        sentences.append(
            f"The openings cover only {100 * development.covered:.0f} % of the base's refusals, so "
            "the fit does not see the others: name openings, or take a judge that tells refusals "
            "apart."
        )
    agreement = max((one.agreement for one in measured), default=1.0)
    # A model that says one thing only tells nothing of what the judge sees in the margin.
    if agreement < _LEAST_AGREEMENT and not overshoot:
        sentences.append(
            f"The margin agrees with the judge on only {100 * agreement:.0f} % of the development "
            "requests, so moving it does not change what the judge counts."
        )
    return sentences


def _gap(label: str, development: Rate, test: Rate) -> list[str]:
    if test.low <= development.high:
        return []
    return [
        f"{label} is higher on test ({test.percent}) than on development "
        f"({development.percent}), by more than chance: the development requests do not "
        "represent the test's; add requests of the kinds that fail."
    ]


def _lowered(label: str, before: Rate, after: Rate, change: Change) -> str:
    if before.hits == after.hits == 0:
        return f"{label} was 0 of {before.total} requests and still is."
    return _moved(label, before, after, change)


def _moved(label: str, before: Rate, after: Rate, change: Change) -> str:
    moved = "did not change significantly,"
    if change.significant:
        moved = "fell" if change.difference < 0 else "rose"
    return f"{label} {moved} {_from_to(before, after, change)}."


def _from_to(before: Rate, after: Rate, change: Change) -> str:
    return f"from {before.percent} to {after.percent} (p {change.p_value:.2g})"
