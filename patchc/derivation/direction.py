"""The derivation of one direction: tune the base, score the outcome, and write both."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from patchc.derivation.adamw import Kind
from patchc.derivation.anchor import Anchor, anchors_of
from patchc.derivation.base_model import load_stored
from patchc.derivation.compact_output import CompactWriter
from patchc.derivation.conversations import Conversation
from patchc.derivation.derive_options import DeriveOptions, Direction
from patchc.derivation.direction_report import DirectionReport
from patchc.derivation.examples import Example
from patchc.derivation.gradient_store import GradientStore, HeldGradients, ScratchGradients
from patchc.derivation.margin import Labelled, Openings
from patchc.derivation.margin_tuning import MarginTuning
from patchc.derivation.output import write_json, write_whole
from patchc.derivation.response_tuning import ResponseTuning
from patchc.derivation.scores import GradientSums, scored_tensors, snip_score
from patchc.derivation.trainer import Trainer, Workplace
from patchc.derivation.tune import Tuner, Tuning
from patchc.files import staged_folder
from patchc.layered.boundaries import HeldBoundaries
from patchc.layered.layered_model import Loss
from patchc.layered.model_parts import load_parts
from patchc.layered.passes import Pass, Term
from patchc.layered.sources import read_whole
from patchc.progress import Progress, ProgressEvent
from patchc.recipe.safepatching import Score
from patchc.selection.component_record import RECORD
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


class DirectionDerivation:
    """The derivation of one direction."""

    def __init__(
        self,
        place: Workplace,
        material: Material,
        objective: ResponseTuning | MarginTuning,
        direction: Direction,
        options: DeriveOptions,
        progress: Progress,
        base_identity: Mapping[str, str],
    ) -> None:
        self._place = place
        self._base = place.base
        self._material = material
        self._objective = objective
        self._direction = direction
        self._options = options
        self._progress = progress
        self._base_identity = base_identity
        parts = load_parts(place.base, place.device, place.dtype)
        source, remembers = place.source, not place.layout.streams
        self._trained = objective.trained(source, parts, remembers)
        self._scored = scored_tensors(parts.shapes, options)
        # Without a plan, "auto" is what a plan prefers.
        kind: Kind = "adamw" if options.optimizer == "auto" else options.optimizer
        self._trainer = Trainer(place, parts, self._trained, kind, direction)
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
            self._trainer.finish()
            if False in kinds:
                sums["tuned"] = self._sum("tuned", losses)
            report = DirectionReport(
                direction=direction,
                path=out,
                steps=len(tuning.losses),
                first_loss=tuning.losses[0],
                last_loss=tuning.last_loss,
                compared=tuning.compared,
                early_loss=tuning.mean_loss(at_start=True),
                late_loss=tuning.mean_loss(at_start=False),
                at_ceiling=tuning.ceiling_loss is not None,
                scored_tensors=len(self._scored),
                scored_samples=len(losses),
                anchors=len(anchors),
            )
            scratch = self._place.scratch
            if scratch is not None:
                # The folder appears whole or not at all; if it does, this tells the next run.
                scratch.note(**{f"report-{direction}": {**asdict(report), "path": str(out)}})
            self._write(out, tuning, sums, len(losses))
        finally:
            self._trainer.close()
        if scratch is not None:
            scratch.remove_files(f"{direction}-")
        return report

    def _study_base(self) -> tuple[list[Anchor], Iterator[Loss]]:
        """Take the anchors, and prepare the batches' losses, with the base's weights."""
        boundaries = partial(self._trainer.boundaries, "asked", many=True, goes_back=False)
        with self._trainer.as_base():
            replies = self._material.anchors
            anchors = anchors_of(self._model, replies, boundaries()) if replies else []
            losses = self._objective.losses(self._model, self._direction, boundaries)
        self._forget("asked")
        return anchors, losses

    def _forget(self, name: str) -> None:
        """Remove a scratch file that is done with, so that it takes no room beside the next."""
        if self._place.scratch is not None:
            self._place.scratch.remove_files(f"{self._direction}-{name}")

    def _sum(self, kind: str, losses: Sequence[Loss]) -> GradientStore:
        """Sum the absolute gradients of the losses, of the base or of the tuned model."""
        place, parts, scratch = self._place, self._model.parts, self._place.scratch
        sizes = {name: math.prod(shape) for name, shape in self._scored.items()}
        joined = parts.head_name if parts.tied and parts.head_name in self._scored else None
        if scratch is None:
            held = HeldGradients(sizes, place.device)
            sums = GradientSums(held, self._scored, place.device, joined)
            for done, loss in enumerate(losses, start=1):
                Pass(self._model, [Term(loss)], sums, HeldBoundaries(), place.layout.keeps).run()
                self._report(kind, done, len(losses), "samples")
            return held
        name = f"{kind}-sums"
        store = ScratchGradients(scratch, sizes, f"{self._direction}-{name}")
        if not scratch.notes.get(f"{self._direction}-{name}-done"):
            sums = GradientSums(store, self._scored, place.device, joined)
            self._sum_streamed(kind, losses, sums, alone=joined is not None)
            scratch.note(**{f"{self._direction}-{name}-done": True})
        self._forget(f"{kind}-scoring")
        return store

    def _sum_streamed(
        self, kind: str, losses: Sequence[Loss], sums: GradientSums, alone: bool
    ) -> None:
        """Sum layer by layer; ``alone`` takes each loss through the model by itself."""
        parts = self._model.parts
        layers = len(parts.layers)
        resumes = not alone and parts.inside.issuperset(self._scored)
        groups = [[loss] for loss in losses] if alone else [losses]
        for number, group in enumerate(groups):
            kept = self._trainer.boundaries(f"{kind}-scoring", not alone, resumes=resumes)
            before = 2 * layers * number

            def report(passed: int, before: int = before) -> None:
                self._report(kind, before + passed, 2 * layers * len(groups), "layers")

            terms = [Term(loss) for loss in group]
            Pass(self._model, terms, sums, kept, self._place.layout.keeps, report).run()

    def _report(self, kind: str, done: int, total: int, unit: str) -> None:
        label = self._direction if kind == "tuned" else f"base for {self._direction}"
        self._progress(ProgressEvent(f"score {label}", done, total, unit))

    def _write(
        self, out: Path, tuning: Tuning, sums: Mapping[str, GradientStore], samples: int
    ) -> None:
        base, options = self._base, self._options
        score = partial(self._score, sums)
        with staged_folder(out) as folder:
            if options.holding:
                writer = CompactWriter(folder, base, options.holding, self._direction, options)
                writer.write(self._scored, self._value, score)
            else:
                write_whole(folder, base, self._scored, options, self._value, score)
            write_json(folder / RECORD, self._record(tuning, samples))

    def _value(self, name: str) -> Tensor:
        """Return a tensor of the tuned model, as it will be written, on the CPU."""
        parts = self._model.parts
        if name not in parts.names:
            return load_stored(self._base, name)
        stored = parts.names[name]
        return read_whole(self._trainer.weights, stored, parts.shapes[stored], torch.float32)

    def _score(self, sums: Mapping[str, GradientStore], kind: Score, name: str) -> Tensor:
        """Compute one tensor's scores, of the base's weights, the tuned model's or the delta."""
        shape = self._scored[name]
        source = self._place.source
        values = read_whole(
            source if kind == "base-weight" else self._trainer.weights, name, shape, torch.float32
        )
        if kind.endswith("delta"):
            values -= read_whole(source, name, shape, torch.float32)
        store = sums["base" if kind.startswith("base-") else "tuned"]
        gradients = store.read(name, 0, values.numel()).cpu().view(shape)
        return snip_score(f"{self._direction}: tensor {name!r}", gradients, values)

    def _record(self, tuning: Tuning, scored_samples: int) -> dict[str, Any]:
        summary = {"steps": len(tuning.losses), "last_loss": tuning.last_loss}
        return {
            "kind": "derive",
            "objective": self._options.objective,
            "direction": self._direction,
            **self._base_identity,
            **self._material.record,
            "anchors": len(self._material.anchors),
            "options": self._options.to_json(),
            "device": self._place.device.type,
            "scored_samples": scored_samples,
            "tuning": {**asdict(tuning), **summary},
            "versions": {
                "patchc": __version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
        }
