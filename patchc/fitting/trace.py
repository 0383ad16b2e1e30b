"""The trace of a fit: a file of every step and measured point, so that a fit can be resumed."""

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

_ARRAYS = ("values", "first", "second")


@dataclass(frozen=True)
class BaseLine:
    """The measured base, with its replies by set."""

    trial: Trial
    replies: dict[SetName, list[str]]


@dataclass(frozen=True)
class PointLine:
    """A point measured by generation: its step, and how far the margin agreed with the verdicts."""

    step: int
    trial: Trial
    agreement: float


Line = BaseLine | PointLine | Step


class Trace:
    """An open trace: the lines that it holds, and those added to it."""

    def __init__(self, journal: Journal[Line]) -> None:
        self._journal = journal
        self.base: BaseLine | None = None
        self.steps: list[Step] = []
        self.points: dict[int, PointLine] = {}
        for line in journal.all():
            self._take(line)

    def add(self, line: Line) -> None:
        """Append a line.

        Raises:
            StorageError: the operating system refused.
        """
        self._journal.add(line)
        self._take(line)

    def _take(self, line: Line) -> None:
        if isinstance(line, Step):
            self.steps.append(line)
        elif isinstance(line, PointLine):
            self.points[line.step] = line
        else:
            self.base = self.base or line


@contextmanager
def open_trace(path: Path, inputs: Mapping[str, Any]) -> Iterator[Trace]:
    """Open a trace, or begin one whose first line states the inputs that it belongs to.

    Raises:
        EvaluateError, StorageError: see :func:`patchc.evaluation.journal.open_journal`.
    """
    with open_journal(path, "fit", inputs, _encode, _decode) as journal:
        yield Trace(journal)


def _encode(line: Line) -> dict[str, Any]:
    if isinstance(line, BaseLine):
        return {"base": encode_trial(line.trial), "replies": line.replies}
    if isinstance(line, PointLine):
        trial = encode_trial(line.trial)
        return {"point": line.step, "trial": trial, "agreement": line.agreement}
    content = {"step": line.number, "loss": line.loss, "validation": line.validation}
    arrays = {name: getattr(line, name).tolist() for name in _ARRAYS}
    return {**content, "seconds": line.seconds, **arrays}


def _decode(content: Any) -> Line:
    if "base" in content:
        return BaseLine(decode_trial(content["base"]), dict(content["replies"]))
    if "point" in content:
        trial = decode_trial(content["trial"])
        return PointLine(int(content["point"]), trial, float(content["agreement"]))
    arrays: dict[str, Any] = {name: np.array(content[name], np.float64) for name in _ARRAYS}
    return Step(
        int(content["step"]),
        loss=content["loss"],
        seconds=float(content["seconds"]),
        validation=content["validation"],
        **arrays,
    )
