"""Fine-tunes of tiny models in memory, without what a derivation scores and writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from layered_models import CPU

from patchc.checkpoint import open_checkpoint
from patchc.derivation.anchor import Anchor
from patchc.derivation.derive_options import DeriveOptions, Direction
from patchc.derivation.margin_tuning import MarginTuning
from patchc.derivation.response_tuning import ResponseTuning
from patchc.derivation.trainer import IN_MEMORY, Trainer, Workplace
from patchc.derivation.tune import Tuner, Tuning
from patchc.layered.boundaries import HeldBoundaries
from patchc.layered.layered_model import LayeredModel
from patchc.layered.model_parts import load_parts
from patchc.layered.sources import BaseSource
from patchc.progress import ignore_progress


def tuned_in_memory(
    folder: Path,
    objective: ResponseTuning | MarginTuning,
    direction: Direction,
    options: DeriveOptions,
    anchors_of: Callable[[LayeredModel], Sequence[Anchor]] = lambda _model: [],
) -> tuple[LayeredModel, Tuning]:
    """Tune a base; the anchors are taken from the base as it is before."""
    with open_checkpoint(folder) as base:
        place = Workplace(base, CPU, torch.float32, False, IN_MEMORY, None)
        parts = load_parts(base, CPU, torch.float32)
        trained = objective.trained(BaseSource(base), parts, True)
        trainer = Trainer(place, parts, trained, options.optimizer, direction)
        model = trainer.model
        tuner = Tuner(
            trainer, objective.losses(model, direction, HeldBoundaries),
            objective.steps(direction), direction, anchors_of(model), options,
            objective.rate(direction), None, ignore_progress,
        )  # fmt: skip
        return model, tuner.run()
