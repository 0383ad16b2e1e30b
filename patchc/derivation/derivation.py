"""One derivation from start to end: for each direction, load the base, tune, score and write.

The directions are the tuned models to make: "se" for safety enhancement (SE), "osm" for over-safety
mitigation (OSM), or "margin", which serves as SE. A patch is later built from the deltas, and the
scores select its entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn import Parameter

from patchc.checkpoint import Checkpoint
from patchc.derivation.anchor import anchors_of
from patchc.derivation.base_model import load_model, load_stored, load_tokenizer, name_tensors
from patchc.derivation.compact_output import CompactWriter
from patchc.derivation.conversations import Conversation
from patchc.derivation.derive_options import DeriveOptions, Direction
from patchc.derivation.examples import Example, encode
from patchc.derivation.margin import Labelled, Openings
from patchc.derivation.margin_tuning import MarginTuning
from patchc.derivation.output import RECORD, write_json, write_whole
from patchc.derivation.response_tuning import ResponseTuning
from patchc.derivation.scores import gradient_sums, scored_tensors, snip_score
from patchc.derivation.session import choose_device, quiet_transformers, reproducible
from patchc.derivation.tune import Tuning
from patchc.files import staged_folder
from patchc.progress import Progress
from patchc.recipe.safepatching import Score
from patchc.version import __version__


@dataclass(frozen=True)
class Material:
    """What to learn from: conversations, or labelled requests with openings.

    Attributes:
        conversations: their last turns are learnt or unlearnt; empty for the objective "margin".
        labelled: requests as tokens, for the objective "margin".
        openings: how refusals begin, for the objective "margin".
        anchors: replies of the base that should not change.
        record: where all this comes from, as JSON values for the record of the run.
    """

    conversations: tuple[Conversation, ...] = ()
    labelled: tuple[Labelled, ...] = ()
    openings: Openings | None = None
    anchors: tuple[Example, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DirectionReport:
    """One derived direction.

    Attributes:
        direction: "se", "osm" or "margin".
        path: its folder.
        steps: optimiser steps taken.
        first_loss: mean loss of the first batch, before any step.
        last_loss: mean loss of the last batch seen.
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
    at_ceiling: bool
    scored_tensors: int
    scored_samples: int
    anchors: int = 0


def derive_directions(
    base: Checkpoint,
    material: Material,
    out: Path,
    options: DeriveOptions,
    progress: Progress,
    layout: Layout = IN_MEMORY,
    scratch: Scratch | None = None,
) -> tuple[DirectionReport, ...]:
    """Derive the objective's directions, each into its own folder below ``out``.

    A direction that an earlier run with this scratch folder has written is not derived again.

    Raises:
        DeriveError, UnsupportedInputError, UsageError, StorageError: see the called functions.
    """
    device = choose_device(options.device)
    objective: ResponseTuning | MarginTuning
    if material.openings:
        objective = MarginTuning(material.labelled, material.openings, options)
    else:
        tokenizer = load_tokenizer(base.path)
        examples = [encode(tokenizer, one, options.max_length) for one in material.conversations]
        objective = ResponseTuning(examples, options)
    stays_bf16 = base.main_dtype == "BF16" and options.objective == "margin" and options.retain < 1
    dtype = torch.bfloat16 if stays_bf16 else torch.float32
    place = Workplace(base, device, dtype, options.precision == "bfloat16", layout, scratch)
    with reproducible(device, options.seed), quiet_transformers():
        return tuple(
            _written(scratch, direction, out / direction)
            or _Derivation(place, material, objective, direction, options, progress).derive(
                out / direction
            )
            for direction in options.folders
        )


class _Derivation:
    """The derivation of one direction."""

    def __init__(
        self,
        place: Workplace,
        material: Material,
        objective: ResponseTuning | MarginTuning,
        direction: Direction,
        options: DeriveOptions,
        progress: Progress,
    ) -> None:
        self._place = place
        self._base = place.base
        self._material = material
        self._objective = objective
        self._direction = direction
        self._options = options
        self._progress = progress
        parts = load_parts(place.base, place.device, place.dtype)
        source, remembers = BaseSource(place.base), not place.layout.streams
        self._trained = objective.trained(source, parts, remembers)
        self._scored = scored_tensors(parts.shapes, options)
        self._trainer = Trainer(place, parts, self._trained, options.optimizer, direction)
        self._model = self._trainer.model

    def derive(self, out: Path) -> DirectionReport:
        """Tune, score and write."""
        objective, options, direction = self._objective, self._options, self._direction
        try:
            sums: dict[str, GradientStore] = {}
            losses = objective.sample_losses(self._model)
            kinds = {kind.startswith("base-") for kind in options.scores}
            # What an interrupted run has tuned is no longer the base.
            anchors, batches = self._study_base()
            if True in kinds:
                sums["base"] = self._sum("base", losses)
            tuner = Tuner(
                self._trainer, batches, objective.steps(direction), direction, anchors, options,
                objective.rate(direction), self._place.scratch, self._progress,
            )  # fmt: skip
            tuning = tuner.run()
            if False in kinds:
                sums["tuned"] = self._sum("tuned", losses)
            self._write(out, tuning, sums, len(losses))
        finally:
            self._trainer.close()
        return DirectionReport(
            direction=direction,
            path=out,
            steps=len(tuning.losses),
            first_loss=tuning.losses[0],
            last_loss=tuning.last_loss,
            at_ceiling=tuning.ceiling_loss is not None,
            scored_tensors=len(self._scored),
            scored_samples=len(losses),
            anchors=len(anchors),
        )
