"""The report of a fix: the figures of development and test, and what they were measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from patchc.evaluation.paired import Change, compare
from patchc.evaluation.rates import Kinds, Rate, rates_by_kind
from patchc.evaluation.requests import RequestSets, SetName
from patchc.evaluation.trials import Trial, decode_trial
from patchc.evaluation.verdicts import Outcome
from patchc.fixing.split import SetSplit
from patchc.json_values import json_values


@dataclass(frozen=True)
class Figures:
    """How one model answered the development or the test requests.

    Attributes:
        harmful, over_refusal, misanswered, utility, degenerate: as in :class:`patchc.Evaluation`.
        perplexity, answer_perplexity, kinds, outcomes: likewise.
    """

    harmful: Rate
    over_refusal: Rate
    misanswered: Rate
    utility: Rate | None
    degenerate: Rate
    perplexity: float | None
    answer_perplexity: float | None
    kinds: Kinds
    outcomes: Mapping[SetName, tuple[Outcome, ...]] = field(metadata={"json": False})

    @classmethod
    def of(cls, trial: Trial, requests: RequestSets) -> Figures:
        """Take the figures of a trial, with rates by kind of its requests."""
        shared = {one.name: getattr(trial, one.name) for one in fields(cls) if one.name != "kinds"}
        return cls(**shared, kinds=rates_by_kind(requests, dict(trial.outcomes)))


@dataclass(frozen=True)
class Comparison:
    """Base and patched model on the same requests.

    Attributes:
        base, patched: their figures; ``patched`` is None if there is no patch.
        changes: how the rates differ (:func:`~patchc.evaluation.paired.compare`).
    """

    base: Figures
    patched: Figures | None
    changes: Mapping[str, Change]

    @classmethod
    def of(cls, base: Figures, patched: Figures | None) -> Comparison:
        """Compare two models."""
        return cls(base, patched, compare(base.outcomes, patched.outcomes) if patched else {})


@dataclass(frozen=True)
class Point:
    """A point of the fit that generation measured on the development requests.

    Attributes:
        step: steps taken before it.
        figures: its figures.
        agreement: share of the requests whose margin has the sign of the verdict.
        against: why it should not become the patch, in words.
        chosen: whether it became the patch.
    """

    step: int
    figures: Figures
    agreement: float
    against: tuple[str, ...]
    chosen: bool


@dataclass(frozen=True)
class Development:
    """The result of the fit.

    Attributes:
        comparison: the base and the chosen point.
        points: the measured points, the best on validation first.
        openings: how refusals begin.
        covered: share of the base's refusals that begin with one of the openings.
        steps: steps taken.
        ended: why they ended.
    """

    comparison: Comparison
    points: tuple[Point, ...]
    openings: tuple[str, ...]
    covered: float
    steps: int
    ended: str

    @classmethod
    def of(cls, fitted: Mapping[str, Any], requests: RequestSets) -> Development:
        """Decode what :func:`patchc.fixing.stages.encode_fitted` encoded."""
        points = tuple(
            Point(
                one["step"],
                Figures.of(decode_trial(one["trial"]), requests),
                one["agreement"],
                tuple(one["against"]),
                one["chosen"],
            )
            for one in fitted["candidates"]
        )
        base = Figures.of(decode_trial(fitted["base"]), requests)
        chosen = next((one.figures for one in points if one.chosen), None)
        return cls(
            Comparison.of(base, chosen),
            points,
            tuple(fitted["openings"]),
            fitted["covered"],
            fitted["steps"],
            fitted["ended"],
        )


@dataclass(frozen=True)
class FixReport:
    """A finished fix, with or without a patch.

    Attributes:
        version: of patchc.
        base: the model's folder.
        base_digest: the digest of its weights, in hexadecimal.
        result_digest: that of the patched model; empty without a patch.
        objective: the objective of the derivation.
        judge: the judge's name.
        seed: the seed of everything that is drawn.
        requests: how each set was split.
        data: BLAKE3 of the test requests of each set, as they lie in ``work``, in hexadecimal.
        learned: number of development requests to learn from, by set. The fit validates on the
            others.
        development: the result of the fit.
        test: base and patched model on the test requests; None without a patch.
        verdict: the outcome, in sentences.
        warnings: what limits the meaning of the figures.
        out: the patch; None if there is none.
        recipe: the recipe file; None without a patch.
        patch_bytes: size of the patch.
        model_bytes: size of the base's weights.
        share: patch_bytes / model_bytes.
        seconds: how long each finished stage took, by its name.
        page: the page on the patch and its results; None without a patch.
    """

    version: str
    base: Path
    base_digest: str
    result_digest: str
    objective: str
    judge: str
    seed: int
    requests: Mapping[SetName, SetSplit]
    data: Mapping[SetName, str]
    learned: Mapping[SetName, int]
    development: Development
    test: Comparison | None
    verdict: tuple[str, ...]
    warnings: tuple[str, ...]
    out: Path | None
    recipe: Path | None
    patch_bytes: int
    model_bytes: int
    share: float
    seconds: Mapping[str, float]
    page: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values; numbers that JSON cannot express become texts."""
        content: dict[str, Any] = json_values(self)
        return content
