"""The training loop of every fine-tune; it descends or ascends a loss batch by batch.

An anchor, a penalty on moving away from the base on harmless requests, may be added to the loss.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from patchc.derivation.anchor import Anchor, divergence
from patchc.derivation.derive_options import DeriveOptions, Direction
from patchc.derivation.examples import shuffled
from patchc.derivation.trainer import Trainer
from patchc.errors import DeriveError
from patchc.layered.layered_model import Loss
from patchc.layered.passes import Term
from patchc.layered.scratch import Scratch
from patchc.progress import Progress, ProgressEvent

_WARM_UP = 3
"""Steps over which the learning rate rises, unless it is constant."""
_SMALLEST = 1e-6
"""Added to the norm that a gradient is clipped by, as torch does."""


@dataclass(frozen=True)
class Tuning:
    """The course of a fine-tune.

    Attributes:
        losses: mean loss of the batch before each step, without the anchor.
        ceiling_loss: the loss that reached the ceiling and ended the tuning; None if all steps
            were taken.
        divergences: before each step, the KL divergence from the base over a batch of anchors;
            empty without anchors.
    """

    losses: tuple[float, ...]
    ceiling_loss: float | None
    divergences: tuple[float, ...] = ()

    @property
    def last_loss(self) -> float:
        """Mean loss of the last batch seen."""
        return self.losses[-1] if self.ceiling_loss is None else self.ceiling_loss

    @property
    def compared(self) -> int:
        """How many steps at the start, and as many at the end, are compared: a tenth, or three."""
        return max(1, min(max(3, len(self.losses) // 10), len(self.losses) // 2))

    def mean_loss(self, at_start: bool) -> float:
        """Mean loss of the first or the last steps: single batches differ by their samples."""
        losses = self.losses[: self.compared] if at_start else self.losses[-self.compared :]
        return sum(losses) / len(losses)


@dataclass
class Tuner:
    """Takes the steps of one direction.

    The pair's safety enhancement (SE) component ascends the loss, everything else descends it.
    AdamW runs without weight decay, so that the delta comes from the data alone. A batch whose loss
    reaches the pair's ceiling ends the tuning before its step. With anchors, the weighted
    divergence from the base is added to the loss.

    Attributes:
        trainer: the model and its optimiser.
        losses: gives the loss of one batch after another.
        steps: how many to take.
        direction: what is derived.
        anchors: replies of the base that should not change.
        options: how it is tuned.
        rate: the learning rate.
        scratch: where finished steps are noted; None in memory.
        progress: called before each step's update.
    """

    trainer: Trainer
    losses: Iterator[Loss]
    steps: int
    direction: Direction
    anchors: Sequence[Anchor]
    options: DeriveOptions
    rate: float
    scratch: Scratch | None
    progress: Progress
    _seen: list[float] = field(default_factory=list)
    _away: list[float] = field(default_factory=list)
    _last: tuple[float, int] = (0.0, 0)

    def run(self) -> Tuning:
        """Take the steps, or those that an interrupted run has left.

        Raises:
            DeriveError: a loss or gradient is not finite, or the first batch reaches the ceiling.
        """
        chosen = self.options.tuning(self.direction)
        count = min(-(-chosen.batch_size // 3), len(self.anchors))
        anchored = shuffled(self.anchors, count, self.options.seed)
        self._last = time.perf_counter(), self.trainer.moved_bytes
        self._resume()
        for step in range(1, self.steps + 1):
            terms = self._terms(next(self.losses), anchored)
            if step <= self.trainer.states.steps:
                continue
            if not self._take(step, terms):
                return Tuning(tuple(self._seen[:-1]), self._seen[-1], tuple(self._away))
        return Tuning(tuple(self._seen), None, tuple(self._away))

    def _terms(self, loss: Loss, anchored: Iterator[list[Anchor]]) -> list[Term]:
        """The losses of a step: that of the batch, and the divergence from the base."""
        ascends = self.options.objective == "pair" and self.direction == "se"
        terms = [Term(loss, -1.0 if ascends else 1.0)]
        if self.anchors:
            away = partial(divergence, self.trainer.model, next(anchored))
            terms.append(Term(away, self.options.weight_of_anchor))
        return terms

    def _take(self, step: int, terms: Sequence[Term]) -> bool:
        """Take a step; returns False where the ceiling ends the tuning."""
        chosen = self.options.tuning(self.direction)
        passed = partial(self._report, step)
        values, norm = self.trainer.gradients(terms, partial(self._accept, step), passed)
        self._seen.append(values[0])
        if len(values) < len(terms) or values[0] >= self._ceiling:
            return False
        self._away += values[1:]
        if not (math.isfinite(values[0]) and math.isfinite(norm.item())):
            raise DeriveError(
                f"{self.direction}: the loss is {values[0]} and its gradient's norm {norm.item()} "
                f"at step {step}; lower the learning rate, or set a loss ceiling"
            )
        most = math.inf if chosen.clip is None else chosen.clip
        scale = (most / (norm + _SMALLEST)).clamp(max=1.0).item()
        share = _share(step, self.steps if self.direction == "margin" else None)
        self._update(step, scale, self.rate * share)
        return True

    def _accept(self, step: int, index: int, value: float) -> bool:
        if index:
            return True
        detail = f"loss {value:.3f}"
        self.progress(ProgressEvent(f"tune {self.direction}", step, self.steps, "steps", detail))
        if value >= self._ceiling and step == 1:
            raise DeriveError(
                f"{self.direction}: the base's own loss is {value:.3f}, at or above the loss "
                "ceiling, so no step was taken; raise the ceiling"
            )
        return value < self._ceiling

    def _report(self, step: int, layers: float) -> None:
        """Report how far a step is, in layers; the update counts as a third way through them."""
        moved = self.trainer.moved_bytes
        if not moved:
            return
        now, total = time.perf_counter(), 3 * len(self.trainer.model.parts.layers)
        (then, before), self._last = self._last, (now, moved)
        rate = (moved - before) / max(now - then, 1e-9) / 1e9
        detail = f"step {step}, {rate:.2f} GB/s"
        stage = f"layers of {self.direction}"
        self.progress(ProgressEvent(stage, round(layers), total, "layers", detail))

    @property
    def _ceiling(self) -> float:
        stated = self.options.tuning(self.direction).loss_ceiling
        return math.inf if self.options.objective != "pair" or stated is None else stated

    def _update(self, step: int, scale: float, rate: float) -> None:
        if self.scratch is not None:
            noted = {"step": step, "scale": scale, "rate": rate}
            course = {"losses": [*self._seen], "divergences": [*self._away]}
            self.scratch.note(**{f"{self.direction}-course": {**noted, **course}})
        self._step(step, scale, rate)

    def _step(self, step: int, scale: float, rate: float) -> None:
        layers = len(self.trainer.model.parts.layers)
        self.trainer.update(scale, rate, lambda share: self._report(step, layers * (2 + share)))

    def _resume(self) -> None:
        """Take up an interrupted run, and complete the step that it was within."""
        noted: dict[str, Any] | None = None
        if self.scratch is not None:
            noted = self.scratch.notes.get(f"{self.direction}-course")
        if noted is None:
            return
        self._seen, self._away = [*noted["losses"]], [*noted["divergences"]]
        if noted["step"] > self.trainer.states.steps:
            self._step(noted["step"], noted["scale"], noted["rate"])


def _share(step: int, steps: int | None) -> float:
    """The share of the learning rate in a step: constant, or rising for three and then falling.

    A hinge loss has no gradient once it has succeeded, and a constant rate would overshoot.
    """
    if steps is None:
        return 1.0
    return min(step / _WARM_UP, max(steps - step + 1, 1) / steps)
