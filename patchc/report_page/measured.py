"""Figures of models in what ``evaluate --json`` printed and in ``report.json`` of ``fix``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from patchc.errors import MismatchError
from patchc.evaluation.paired import Change
from patchc.evaluation.rates import Rate
from patchc.evaluation.summary import RATE_NAMES
from patchc.evaluation.verdicts import RATES
from patchc.report_page.checked_values import (
    change,
    count,
    digest,
    listed,
    named,
    number,
    optional,
    rate,
    text,
)
from patchc.sides import Side

PERPLEXITIES = ("perplexity", "answer_perplexity")


@dataclass(frozen=True)
class Digests:
    """What results must be of.

    Attributes:
        root: of the patch file.
        base: of the model that it is made for; None where results have other digests of models,
            because the patch has chunks of another size.
        result: of the patched model; None likewise, and for an additive patch.
    """

    root: str
    base: str | None
    result: str | None


@dataclass(frozen=True)
class Figures:
    """How one model answered: rates by name, perplexities by name, and rates by set and kind."""

    rates: Mapping[str, Rate]
    perplexities: Mapping[str, float]
    kinds: Mapping[str, Mapping[str, Rate]]


@dataclass(frozen=True)
class Measurement:
    """Base and patched model on the same requests.

    Attributes:
        source: the file's name.
        asked: what they were asked, in words.
        judge: the judge's name.
        requests: how many requests each set has, where the file says so.
        data: digests of the requests, by set.
        base, patched: their figures; None where the file has none.
        changes: how the rates differ.
        others: how many other models the file has, which are left out.
    """

    source: str
    asked: str
    judge: str
    requests: Mapping[str, int]
    data: Mapping[str, str]
    base: Figures | None
    patched: Figures | None
    changes: Mapping[str, Change] = field(default_factory=dict)
    others: int = 0


def figures(content: Any) -> Figures:
    """Read the figures of a model from their JSON values."""
    return Figures(
        {name: rate(content[name]) for name in RATE_NAMES if content.get(name) is not None},
        {name: number(content[name]) for name in PERPLEXITIES if content.get(name) is not None},
        named(lambda kinds: named(rate, kinds), content.get("kinds", {})),
    )


def changes_of(content: Any) -> dict[str, Change]:
    """Read how the rates of two models differ."""
    return {name: change(content[name]) for name in RATES if content.get(name) is not None}


def read_evaluation(content: Any, source: str, own: Digests) -> Measurement | None:
    """Read what ``evaluate --json`` printed: the base and the result of one patch.

    Returns:
        None if it has turns and neither of the two.

    Raises:
        MismatchError: it is of other models.
        the errors of :mod:`~patchc.report_page.checked_values`: it is damaged.
    """
    models = listed(dict, content["models"])
    found: dict[Side, Figures] = {}
    changes: Mapping[str, Change] = {}
    for one in models:
        side = _side(digest(one["digest"]), one.get("patch") is not None, own)
        if side and side not in found:
            found[side] = figures(one)
            if side == "result":
                changes = changes_of(content.get("changes", {}).get(text(one["model"]), {}))
    vouched = own.result is not None or own.base is None or "base" in found
    if "result" not in found or not vouched:
        if content.get("turns"):
            return None
        raise MismatchError(_of_others(source, own))
    return Measurement(
        source,
        "the requests of patchc evaluate",
        text(content["judge"]),
        named(count, content["requests"]),
        named(digest, content.get("data", {})),
        found.get("base"),
        found["result"],
        changes if "base" in found else {},
        len(models) - len(found),
    )


def read_comparison(
    content: Any, source: str, asked: str, judge: str, data: Mapping[str, str]
) -> Measurement:
    """Read base and patched model of a fix, on development or on test requests."""
    return Measurement(
        source,
        asked,
        judge,
        {},
        data,
        figures(content["base"]),
        optional(figures, content["patched"]),
        changes_of(content["changes"]),
    )


def check_models(source: str, own: Digests, base: str, result: str) -> None:
    """Refuse results of another base or another patch; an empty ``result`` is not known.

    Raises:
        MismatchError: they are.
    """
    if own.base not in (base, None) or (result and own.result not in (result, None)):
        raise MismatchError(_of_others(source, own))


def _side(digest_of: str, is_patched: bool, own: Digests) -> Side | None:
    """Which side of the patch a measured model is; where no digest tells, its name in the file."""
    if own.result is None and is_patched:
        return "result"
    sides: dict[str | None, Side] = {own.base: "base", own.result: "result"}
    return sides.get(digest_of if own.base is not None else None)


def _of_others(source: str, own: Digests) -> str:
    of = own.result or own.base
    return (
        f"{source}: results of another patch or model: none is of the model whose digest is {of}; "
        "leave the file out, or name the patch that it was measured with"
    )
