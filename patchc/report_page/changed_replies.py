"""Replies in a results file of ``evaluate``: which requests count otherwise with the patch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from patchc.errors import MismatchError
from patchc.evaluation.requests import SetName
from patchc.evaluation.verdicts import OUTCOMES, Outcome
from patchc.report_page.blocks import Exchange
from patchc.report_page.checked_values import digest, text
from patchc.report_page.measured import Digests
from patchc.sides import Side

Transition = tuple[SetName, Outcome, Outcome]
"""A set, what the base's reply counts as, and what the patched model's does."""

MOST_LISTED = 20
"""Requests that are listed of each transition."""


@dataclass(frozen=True)
class ReplyFile:
    """The replies of both models in one file.

    Attributes:
        source: the file's name.
        judge: the judge's name; empty if the file does not have it.
        counts: how many requests made each transition, those that stayed the same too.
        listed: some of the requests of each transition that is a change, in the file's order.
        alone: how many replies only one of the two models has.
    """

    source: str
    judge: str
    counts: Mapping[Transition, int]
    listed: Mapping[Transition, tuple[Exchange, ...]]
    alone: int

    @property
    def changed(self) -> list[Transition]:
        """The transitions that are changes, in the order in which they are shown."""
        return [one for one in _ORDER if self.counts.get(one) and one[1] != one[2]]


_ORDER: list[Transition] = [
    (name, before, after)
    for name, outcomes in OUTCOMES.items()
    for before in outcomes
    for after in outcomes
]


@dataclass(frozen=True)
class _Reply:
    prompt: str
    reply: str
    verdict: Outcome


def read_reply_file(
    lines: Iterable[Any], source: str, inputs: Any, own: Digests, keep: bool
) -> ReplyFile:
    """Read the lines of a results file, and compare those of base and patched model.

    Args:
        lines: the values of its lines but the first.
        source: its name.
        inputs: what its first line states.
        own: the digests of the patch.
        keep: whether any prompt or reply is kept.

    Raises:
        MismatchError: it has no reply of the patched model.
        the errors of :mod:`~patchc.report_page.checked_values`: a line is damaged.
    """
    judge = text(inputs["judge"]) if isinstance(inputs, dict) and "judge" in inputs else ""
    sides: dict[str | None, Side] = {own.base: "base", own.result: "result"}
    replies: dict[Side, dict[tuple[SetName, str], _Reply]] = {"base": {}, "result": {}}
    for line in lines:
        found = _Reply(_reply_text(line["prompt"]), _reply_text(line["reply"]), line["verdict"])
        name = line["set"]
        if found.verdict not in OUTCOMES[name]:
            raise ValueError(f"{found.verdict!r:.40} is no verdict on {name} requests")
        if side := sides.get(digest(line["model"])):
            replies[side][name, digest(line["request"])] = found
    before, after = replies["base"], replies["result"]
    if not after or own.result is None:
        raise MismatchError(
            f"{source}: holds no reply of a model with this patch, by its digest; leave the file "
            "out, or name the patch whose replies it holds"
        )
    counts: dict[Transition, int] = {}
    listed: dict[Transition, list[Exchange]] = {}
    for key in (one for one in before if one in after):
        old, new = before[key], after[key]
        transition = key[0], old.verdict, new.verdict
        counts[transition] = counts.get(transition, 0) + 1
        some = listed.setdefault(transition, [])
        if keep and old.verdict != new.verdict and len(some) < MOST_LISTED:
            some.append(Exchange(old.prompt, old.reply, new.reply))
    both = sum(counts.values())
    return ReplyFile(
        source,
        judge,
        counts,
        {transition: tuple(some) for transition, some in listed.items() if some},
        len(before) + len(after) - 2 * both,
    )


def _reply_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a prompt or a reply is no text")
    return value
