"""Fine-tuning on conversations: their responses are made more or less likely.

Depending on the objective, this gives the tuned model for safety enhancement (SE) or the one for
over-safety mitigation (OSM). In negative preference optimisation (NPO, arXiv 2404.05868), the
ascent fades for a response that has become much less likely than under the base.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from patchc.derivation.derive_options import DeriveOptions, Direction
from patchc.derivation.examples import (
    Example,
    in_batches,
    log_probabilities,
    mean_loss,
    pad,
    shuffled,
)
from patchc.derivation.load import Load, of_examples
from patchc.derivation.trained import Trained, WholeTensors
from patchc.layered.boundaries import Boundaries
from patchc.layered.layered_model import LayeredModel, Loss
from patchc.layered.model_parts import ModelParts
from patchc.layered.passes import evaluate
from patchc.layered.sources import BaseSource


@dataclass(frozen=True)
class ResponseTuning:
    """A derivation from conversations, by any objective but "margin"."""

    examples: list[Example]
    options: DeriveOptions

    def sample_losses(self, model: LayeredModel) -> list[Loss]:
        """Return functions that compute the mean loss of one sampled response each, for scores."""
        return [partial(_mean_loss, model, [one]) for one in self._samples()]

    def trained(self, base: BaseSource, parts: ModelParts, _remembers: bool) -> Trained:
        """Return what is trained: all parameters, whole."""
        return WholeTensors(base, parts.shapes)

    def loads(self, direction: Direction) -> list[Load]:
        """Return what passes the model in a step, at most."""
        return [of_examples(self.examples, self.options.tuning(direction).batch_size)]

    def sample_loads(self) -> list[Load]:
        """Return what passes the model for each sampled response."""
        return [of_examples([one], 1) for one in self._samples()]

    def steps(self, direction: Direction) -> int:
        """Count the steps of a direction."""
        return self.options.tuning(direction).step_count(len(self.examples))

    def rate(self, direction: Direction) -> float:
        """Return the learning rate of a direction."""
        return self.options.tuning(direction).learning_rate

    def losses(
        self, model: LayeredModel, direction: Direction, boundaries: Callable[[], Boundaries]
    ) -> Iterator[Loss]:
        """Return the losses of batches without end; the model must still be the base."""
        options, size = self.options, self.options.tuning(direction).batch_size
        loss_of: Callable[..., Tensor] = partial(_mean_loss, model)
        if options.objective == "npo":
            before = base_log_probabilities(model, self.examples, size, boundaries())
            loss_of = partial(npo_batch_loss, model, before=before, beta=options.npo_beta)
        batches = shuffled(self.examples, size, options.seed)
        return (partial(loss_of, batch) for batch in batches)

    def _samples(self) -> list[Example]:
        count = min(self.options.score_samples, len(self.examples))
        return random.Random(self.options.seed).sample(self.examples, count)


def _mean_loss(model: LayeredModel, examples: Sequence[Example]) -> Tensor:
    return mean_loss(model, pad(examples, model.device))


def npo_loss(likely: Tensor, before: Tensor, beta: float) -> Tensor:
    """Compute (2/β) · mean log(1 + (π/π_base)^β).

    Args:
        likely, before: log-probabilities of the responses under the model π and under the base,
            fp32 [examples].
        beta: how soon the loss fades; towards 0 the gradient is that of plain ascent on the sums
            of the responses' log-probabilities.
    """
    return torch.nn.functional.softplus(beta * (likely - before)).mean() * (2 / beta)


def npo_batch_loss(
    model: Any, examples: Sequence[Example], before: Mapping[Example, float], beta: float
) -> Tensor:
    """Compute the loss of a batch; ``before`` holds log-probabilities under the base."""
    likely = log_probabilities(model, pad(examples, model.device))
    known = torch.tensor([before[example] for example in examples], device=likely.device)
    return npo_loss(likely, known, beta)


def base_log_probabilities(
    model: LayeredModel, examples: Sequence[Example], size: int, boundaries: Boundaries
) -> dict[Example, float]:
    """Compute each response's log-probability under a model, ``size`` examples at a time."""
    batches = list(in_batches(examples, size))
    computes = [partial(log_probabilities, model, pad(batch, model.device)) for batch in batches]
    found: dict[Example, float] = {}
    for batch, likely in zip(batches, evaluate(model, computes, boundaries), strict=True):
        found |= zip(batch, likely.tolist(), strict=True)
    return found
