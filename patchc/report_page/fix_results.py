"""What ``report.json`` of ``fix`` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from patchc.report_page.checked_values import count, digest, listed, named, share, text
from patchc.report_page.measured import (
    Digests,
    Figures,
    Measurement,
    check_models,
    figures,
    read_comparison,
)


@dataclass(frozen=True)
class MeasuredPoint:
    """A point of the fit: steps before it, its figures, and what speaks against it."""

    step: int
    figures: Figures
    agreement: float
    against: tuple[str, ...]
    chosen: bool


@dataclass(frozen=True)
class FixResults:
    """What a fix found.

    Attributes:
        source: the file's name.
        version: of patchc.
        objective, seed: of the derivation, and of everything drawn.
        split: for each set, the number of development and of test requests.
        learned: for each set, the development requests that were learned from.
        verdict, warnings: its own sentences.
        development, test: base and patched model on both.
        points: the measured points of the fit.
        openings: how refusals begin; ``covered`` is the share of the base's that do.
        steps, ended: how many steps the fit took, and why it ended.
    """

    source: str
    version: str
    objective: str
    seed: int
    split: Mapping[str, tuple[int, int]]
    learned: Mapping[str, int]
    verdict: tuple[str, ...]
    warnings: tuple[str, ...]
    development: Measurement
    test: Measurement
    points: tuple[MeasuredPoint, ...]
    openings: tuple[str, ...]
    covered: float
    steps: int
    ended: str


def read_fix(content: Any, source: str, own: Digests) -> FixResults:
    """Read ``report.json``.

    Raises:
        MismatchError: it is of another base or patch.
        the errors of :mod:`~patchc.report_page.checked_values`: it is damaged.
    """
    base, result = digest(content["base_digest"]), content.get("result_digest", "")
    check_models(source, own, base, result and digest(result))
    found, judge = content["development"], text(content["judge"])
    data = named(digest, content.get("data", {}))
    return FixResults(
        source,
        text(content["version"]),
        text(content["objective"]),
        count(content["seed"]),
        named(lambda one: (count(one["development"]), count(one["test"])), content["requests"]),
        named(count, content["learned"]),
        listed(text, content["verdict"]),
        listed(text, content["warnings"]),
        read_comparison(found["comparison"], source, "the development requests", judge, {}, own),
        read_comparison(content["test"], source, "the test requests", judge, data, own),
        listed(_point, found["points"]),
        listed(text, found["openings"]),
        share(found["covered"]),
        count(found["steps"]),
        text(found["ended"]),
    )


def _point(content: Any) -> MeasuredPoint:
    return MeasuredPoint(
        count(content["step"]),
        figures(content["figures"]),
        share(content["agreement"]),
        listed(text, content["against"]),
        content["chosen"] is True,
    )
