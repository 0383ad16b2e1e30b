"""Figures of models in what ``evaluate --json`` printed and in ``report.json`` of ``fix``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    optional,
    perplexity,
    rate,
    text,
)

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
        is_proven: whether a digest in the file is that of the patched model or of the patch.
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
    is_proven: bool = True


def figures(content: Any) -> Figures:
    """Read the figures of a model from their JSON values."""
    return Figures(
        {name: rate(content[name]) for name in RATE_NAMES if content.get(name) is not None},
        {name: perplexity(content[name]) for name in PERPLEXITIES if content.get(name) is not None},
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
    base = _find(models, own.base, is_patched=False)
    result = _find(models, own.result, is_patched=True)
    vouched = own.result is not None or own.base is None or base is not None
    if result is None or not vouched:
        if content.get("turns"):
            return None
        raise MismatchError(_of_others(source, own))
    # Changes are from the model without any patch, which in a chain may be another base.
    is_from_base = base is not None and base.get("patch") is None
    changes = content.get("changes", {}).get(text(result["model"]), {}) if is_from_base else {}
    return Measurement(
        source,
        "the requests of patchc evaluate",
        text(content["judge"]),
        named(count, content["requests"]),
        named(digest, content.get("data", {})),
        optional(figures, base),
        figures(result),
        changes_of(changes),
        len(models) - (1 if base is None else 2),
        own.result is not None,
    )


def read_comparison(
    content: Any, source: str, asked: str, judge: str, data: Mapping[str, str], own: Digests
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
        is_proven=own.result is not None,
    )


def check_models(source: str, own: Digests, base: str, result: str) -> None:
    """Refuse results of another base or another patch; an empty ``result`` is not known.

    Raises:
        MismatchError: they are.
    """
    if own.base not in (base, None) or (result and own.result not in (result, None)):
        raise MismatchError(_of_others(source, own))


def _find(
    models: Sequence[Mapping[str, Any]], known: str | None, *, is_patched: bool
) -> Mapping[str, Any] | None:
    """Find a side of the patch by its digest; where none is known, the only model of its sort."""
    if known is not None:
        return next((one for one in models if digest(one["digest"]) == known), None)
    alike = [one for one in models if (one.get("patch") is not None) == is_patched]
    return alike[0] if len(alike) == 1 else None


def _of_others(source: str, own: Digests) -> str:
    why = f"none is of the model whose digest is {own.result or own.base}"
    if own.result is None:
        why = "no digest tells the patched model, and there is not one alone, beside this base"
    return (
        f"{source}: results of another patch or model: {why}; leave the file out, or name the "
        "patch that it was measured with"
    )
