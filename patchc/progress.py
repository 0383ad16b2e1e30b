"""Progress by callback: the library reports, the caller renders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ProgressEvent:
    """One step of a long task.

    ``done`` and ``total`` count in ``unit`` ("bytes", "parameters", "steps", "samples");
    ``detail`` is a short text for a person, such as the current loss.
    """

    stage: str
    done: int
    total: int
    unit: str
    detail: str = ""


Progress = Callable[[ProgressEvent], None]


def ignore_progress(_event: ProgressEvent) -> None:
    """The default callback: report nothing."""
