"""The trace of a fit, read without torch: losses by step, and the points that were measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from patchc.evaluation.trials import Trial, decode_trial
from patchc.report_page.checked_values import count, digest, number, optional, share
from patchc.report_page.measured import Digests, check_models


@dataclass(frozen=True)
class Loss:
    """The losses at a point: of its batch, and on the requests that no step sees."""

    step: int
    loss: float | None
    validation: float | None


@dataclass(frozen=True)
class TracedPoint:
    """A point that generation measured; of step 0 with no agreement, the base."""

    step: int
    trial: Trial
    agreement: float | None


@dataclass(frozen=True)
class FitTrace:
    """What a trace has: its file's name, the losses, and the base with the measured points."""

    source: str
    losses: tuple[Loss, ...]
    points: tuple[TracedPoint, ...]


def read_trace(lines: Iterable[Any], source: str, inputs: Any, own: Digests) -> FitTrace:
    """Read the lines of a trace but the first, whose ``inputs`` name the base.

    Raises:
        MismatchError: it is of another base.
        the errors of :mod:`~patchc.report_page.checked_values`: a line is damaged.
    """
    check_models(source, own, digest(inputs["models"]["base"]), "")
    losses: dict[int, Loss] = {}
    points: dict[int, TracedPoint] = {}
    for line in lines:
        if "base" in line:
            points.setdefault(-1, TracedPoint(0, decode_trial(line["base"]), None))
        elif "point" in line:
            step, trial = count(line["point"]), decode_trial(line["trial"])
            points[step] = TracedPoint(step, trial, share(line["agreement"]))
        else:
            values = (optional(number, line[name]) for name in ("loss", "validation"))
            step = count(line["step"])
            losses[step] = Loss(step, *values)
    in_order = (points[step] for step in sorted(points))
    return FitTrace(source, tuple(losses[one] for one in sorted(losses)), tuple(in_order))
