"""The report on one derived direction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from patchc.derivation.derive_options import Direction


@dataclass(frozen=True)
class DirectionReport:
    """One derived direction.

    Attributes:
        direction: "se", "osm" or "margin".
        path: its folder.
        steps: optimiser steps taken.
        first_loss: mean loss of the first batch, before any step.
        last_loss: mean loss of the last batch seen.
        compared: the number of steps that ``early_loss`` and ``late_loss`` are each taken over.
        early_loss: mean loss of the first steps' batches, each before its step.
        late_loss: mean loss of the last steps' batches, likewise.
        at_ceiling: whether the loss ceiling ended the tuning.
        scored_tensors: number of tensors with scores.
        scored_samples: number of conversations or requests whose gradients were summed.
        anchors: number of the base's replies that anchored the tuning.
    """

    direction: Direction
    path: Path
    steps: int
    first_loss: float
    last_loss: float
    compared: int
    early_loss: float
    late_loss: float
    at_ceiling: bool
    scored_tensors: int
    scored_samples: int
    anchors: int = 0
