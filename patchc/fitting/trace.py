"""The trace of a fit: every step and every measured point, so that an interrupted fit goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchc.evaluation.journal import Journal, open_journal
from patchc.evaluation.requests import SetName
from patchc.evaluation.trials import Trial, decode_trial, encode_trial
from patchc.fitting.descent import Step


@dataclass(frozen=True)
class BaseLine:
    """The base as it was measured, with its replies by set."""

    trial: Trial
    replies: dict[SetName, list[str]]


@dataclass(frozen=True)
class PointLine:
    """A point that generation measured: the step, and how far the margin agreed."""

    step: int
    trial: Trial
    agreement: float


Line = BaseLine | PointLine | Step


class Trace:
    """An open trace: what it holds, and what is added to it."""

    def __init__(self, journal: Journal[Line]) -> None:
        self._journal = journal
        lines = journal.entries
        self.base = next((line for line in lines if isinstance(line, BaseLine)), None)
        self.steps = [line for line in lines if isinstance(line, Step)]
        self.points = {line.step: line for line in lines if isinstance(line, PointLine)}

    def add(self, line: Line) -> None:
        """Append a line.

        Raises:
            StorageError: the operating system refused.
        """
        self._journal.add([line])
        if isinstance(line, BaseLine):
            self.base = line
        elif isinstance(line, Step):
            self.steps.append(line)
        else:
            self.points[line.step] = line


@contextmanager
def open_trace(path: Path, inputs: Mapping[str, Any]) -> Iterator[Trace]:
    """Open a trace, or begin one; its first line states the inputs that it belongs to.

    Raises:
        EvaluateError, StorageError: see :func:`patchc.evaluation.journal.open_journal`.
    """
    with open_journal(path, "fit", inputs, _encode, _decode) as journal:
        yield Trace(journal)


def _encode(line: Line) -> dict[str, Any]:
    if isinstance(line, BaseLine):
        return {"base": encode_trial(line.trial), "replies": line.replies}
    if isinstance(line, PointLine):
        return {
            "point": line.step,
            "trial": encode_trial(line.trial),
            "agreement": line.agreement,
        }
    return {
        "step": line.number,
        "loss": line.loss,
        "validation": line.validation,
        "seconds": line.seconds,
        "values": line.values.tolist(),
        "first": line.first.tolist(),
        "second": line.second.tolist(),
    }


def _decode(content: Any) -> Line:
    if "base" in content:
        return BaseLine(decode_trial(content["base"]), dict(content["replies"]))
    if "point" in content:
        trial = decode_trial(content["trial"])
        return PointLine(int(content["point"]), trial, float(content["agreement"]))
    return Step(
        int(content["step"]),
        np.array(content["values"], np.float64),
        np.array(content["first"], np.float64),
        np.array(content["second"], np.float64),
        content["loss"],
        float(content["seconds"]),
        content["validation"],
    )
