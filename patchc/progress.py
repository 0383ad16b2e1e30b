"""Progress by callback: the library reports, the caller renders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ProgressEvent:
    """One step of a long task.

    Attributes:
        stage: what is being done, such as "apply" or "check patch".
        done: how much of it is done, in ``unit``.
        total: how much there is to do.
        unit: what is counted: "bytes", "parameters", "steps", "samples" and so on.
        detail: a short text for a person, such as the current loss.
    """

    stage: str
    done: int
    total: int
    unit: str
    detail: str = ""


Progress = Callable[[ProgressEvent], None]


def ignore_progress(_event: ProgressEvent) -> None:
    """The default callback: report nothing."""
