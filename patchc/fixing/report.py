"""What a fix found: the figures of development and test, and where they came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from patchc.evaluation.intervals import Rate
from patchc.evaluation.kinds import Kinds, rates_by_kind
from patchc.evaluation.paired import Change, compare
from patchc.evaluation.requests import RequestSets, SetName
from patchc.evaluation.trials import Trial, decode_trial
from patchc.evaluation.verdicts import Outcome
from patchc.fixing.split import SetSplit
from patchc.json_values import json_values


@dataclass(frozen=True)
class Figures:
    """How one model answered one part of the requests.

    Attributes:
        harmful, over_refusal, misanswered, utility, degenerate, perplexity, answer_perplexity,
            kinds, outcomes: as in :class:`patchc.evaluation.measure.Evaluation`.
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
        """The figures of what was measured on these requests."""
        shared = {one.name: getattr(trial, one.name) for one in fields(cls) if one.name != "kinds"}
        return cls(**shared, kinds=rates_by_kind(requests, dict(trial.outcomes)))


@dataclass(frozen=True)
class Comparison:
    """Base and patched model on the same requests.

    Attributes:
        base, patched: their figures; ``patched`` is None where there is no patch.
        changes: how the rates differ (:func:`~patchc.evaluation.paired.compare`).
    """

    base: Figures
    patched: Figures | None
    changes: Mapping[str, Change]

    @classmethod
    def of(cls, base: Figures, patched: Figures | None) -> Comparison:
        """A comparison with its changes."""
        return cls(base, patched, compare(base, patched) if patched else {})


@dataclass(frozen=True)
class Point:
    """A point of the fit that generation measured on the development requests.

    Attributes:
        step: steps taken before it.
        figures: what was measured.
        agreement: share of the requests whose margin has the sign of the verdict.
        against: what speaks against it, in words.
        chosen: whether it became the patch.
    """

    step: int
    figures: Figures
    agreement: float
    against: tuple[str, ...]
    chosen: bool


@dataclass(frozen=True)
class Development:
    """What the fit found.

    Attributes:
        comparison: the base and the chosen point.
        points: the measured points, the best on validation first.
        openings: how refusals begin.
        covered: share of the base's refusals that begin so.
        steps: steps taken.
        ended: why no more were.
    """

    comparison: Comparison
    points: tuple[Point, ...]
    openings: tuple[str, ...]
    covered: float
    steps: int
    ended: str

    @classmethod
    def of(cls, found: Mapping[str, Any], requests: RequestSets) -> Development:
        """What :func:`patchc.fixing.stages.encode_fitted` kept."""
        points = tuple(
            Point(
                one["step"],
                Figures.of(decode_trial(one["trial"]), requests),
                one["agreement"],
                tuple(one["against"]),
                one["chosen"],
            )
            for one in found["candidates"]
        )
        base = Figures.of(decode_trial(found["base"]), requests)
        chosen = next((one.figures for one in points if one.chosen), None)
        return cls(
            Comparison.of(base, chosen),
            points,
            tuple(found["openings"]),
            found["covered"],
            found["steps"],
            found["ended"],
        )


@dataclass(frozen=True)
class FixReport:
    """A finished fix, or one that found no patch.

    Attributes:
        version: of patchc.
        base: the model's folder.
        base_digest: of its weights, in hexadecimal.
        objective: what the derivation followed.
        judge: who gave the verdicts.
        seed: of everything that is drawn.
        requests: of each set, how it was parted.
        learned: of each set, how many development requests steps may learn from; the others end the
            fit.
        development: what the fit found.
        test: base and patched model on the test requests; None without a patch.
        verdict: what came of it, in sentences.
        warnings: what makes the figures less than they seem.
        out: the patch; None where there is none.
        recipe: the recipe file; None without a patch.
        patch_bytes: size of the patch.
        model_bytes: size of the base's weights.
        share: patch_bytes / model_bytes.
        seconds: how long each finished stage took, by its name.
    """

    version: str
    base: Path
    base_digest: str
    objective: str
    judge: str
    seed: int
    requests: Mapping[SetName, SetSplit]
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

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; numbers that JSON does not have are texts."""
        content: dict[str, Any] = json_values(self)
        return content

    def text(self) -> str:
        """The content of ``report.json``."""
        return json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n"
