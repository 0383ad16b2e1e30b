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
    base: Checkpoint, material: Material, out: Path, options: DeriveOptions, progress: Progress
) -> tuple[DirectionReport, ...]:
    """Derive the objective's directions, each into its own folder below ``out``.

    Raises:
        DeriveError, UnsupportedInputError, UsageError, StorageError: see the called functions.
    """
    device = choose_device(options.device)
    tuner: ResponseTuning | MarginTuning
    if material.openings:
        tuner = MarginTuning(material.labelled, material.openings, options)
    else:
        tokenizer = load_tokenizer(base.path)
        examples = [encode(tokenizer, one, options.max_length) for one in material.conversations]
        tuner = ResponseTuning(examples, options)
    with reproducible(device, options.seed), quiet_transformers(), ExitStack() as passes:
        derivation = _Derivation(base, material, tuner, options, device, progress, passes)
        return tuple(derivation.derive(direction, out / direction) for direction in options.folders)


@dataclass(frozen=True)
class _Derivation:
    """What the directions of one derivation share."""

    base: Checkpoint
    material: Material
    tuner: ResponseTuning | MarginTuning
    options: DeriveOptions
    device: torch.device
    progress: Progress
    passes: ExitStack

    def derive(self, direction: Direction, out: Path) -> DirectionReport:
        base, options = self.base, self.options
        stays_bf16 = base.main_dtype == "BF16" and options.objective == "margin" and options.retain < 1
        dtype = torch.bfloat16 if stays_bf16 else torch.float32
        model = load_model(base.path, self.device, dtype, options.precision, self.passes)
        tensors = name_tensors(model, base)
        scored = scored_tensors(tensors, options)
        anchors = anchors_of(model, self.material.anchors)
        losses = self.tuner.sample_losses(model)
        sum_gradients = partial(gradient_sums, model, scored, losses, self.progress)
        sums = {}
        if any(kind.startswith("base-") for kind in options.scores):
            sums["base"] = sum_gradients(f"base for {direction}")
        tuning = self.tuner.tune(model, direction, anchors, self.progress)
        if not all(kind.startswith("base-") for kind in options.scores):
            sums["tuned"] = sum_gradients(direction)
        with staged_folder(out) as folder:
            value = partial(self._value, tensors)

            def score(kind: Score, name: str) -> Tensor:
                return self._score(kind, direction, scored, sums, name)

            if options.holding:
                writer = CompactWriter(folder, base, options.holding, direction, options)
                writer.write(scored, value, score)
            else:
                write_whole(folder, base, scored, options, value, score)
            write_json(folder / RECORD, self._record(direction, tuning, len(losses)))
        return DirectionReport(
            direction=direction,
            path=out,
            steps=len(tuning.losses),
            first_loss=tuning.losses[0],
            last_loss=tuning.last_loss,
            at_ceiling=tuning.ceiling_loss is not None,
            scored_tensors=len(scored),
            scored_samples=len(losses),
            anchors=len(anchors),
        )

    def _value(self, tensors: Mapping[str, Tensor], name: str) -> Tensor:
        """Return a tensor of the tuned model, as it will be written."""
        if name not in tensors:
            return load_stored(self.base, name)
        tensor = tensors[name]
        if not tensor.is_floating_point():
            return tensor
        return self.tuner.value(name, tensor).float()

    def _score(
        self,
        kind: Score,
        direction: Direction,
        scored: Mapping[str, Parameter],
        sums: Mapping[str, Mapping[str, Tensor]],
        name: str,
    ) -> Tensor:
        """Compute one tensor's scores, of the base's weights, the tuned model's or the delta."""
        values = self.tuner.value(name, scored[name]).float()
        if kind != "weight":
            stored = load_stored(self.base, name).to(values.device, torch.float32)
            values = stored if kind == "base-weight" else values - stored
        gradients = sums["base" if kind.startswith("base-") else "tuned"][name]
        return snip_score(f"{direction}: tensor {name!r}", gradients, values)

    def _record(self, direction: Direction, tuning: Tuning, scored_samples: int) -> dict[str, Any]:
        summary = {"steps": len(tuning.losses), "last_loss": tuning.last_loss}
        return {
            "kind": "derive",
            "objective": self.options.objective,
            "direction": direction,
            "base": self.base.path.resolve().name,
            **self.material.record,
            "anchors": len(self.material.anchors),
            "options": self.options.to_json(),
            "device": self.device.type,
            "scored_samples": scored_samples,
            "tuning": {**asdict(tuning), **summary},
            "versions": {
                "patchc": __version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
        }
