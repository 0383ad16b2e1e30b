"""Fine-tuning on conversations: their responses are made more or less likely.

Depending on the objective, this gives the tuned model for safety enhancement (SE) or the one for
over-safety mitigation (OSM). In negative preference optimisation (NPO, arXiv 2404.05868), the
ascent fades for a response that has become much less likely than under the base.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from patchc.derivation.anchor import Anchor
from patchc.derivation.derive_options import DeriveOptions, Direction
from patchc.derivation.examples import (
    Example,
    in_batches,
    log_probabilities,
    mean_loss,
    pad,
    shuffled,
)
from patchc.derivation.tune import Tuning, tune
from patchc.progress import Progress


@dataclass(frozen=True)
class ResponseTuning:
    """A derivation from conversations, by any objective but "margin"."""

    examples: list[Example]
    options: DeriveOptions

    def sample_losses(self, model: Any) -> list[Callable[[], Tensor]]:
        """Return functions that compute the mean loss of one sampled response each, for scores."""
        count = min(self.options.score_samples, len(self.examples))
        sample = random.Random(self.options.seed).sample(self.examples, count)
        return [partial(self._mean_loss, model, [one]) for one in sample]

    def tune(
        self, model: Any, direction: Direction, anchors: Sequence[Anchor], progress: Progress
    ) -> Tuning:
        """Train all parameters in place.

        Raises:
            DeriveError: see :func:`patchc.derivation.tune.tune`.
        """
        options, chosen = self.options, self.options.tuning(direction)
        batches = shuffled(self.examples, chosen.batch_size, options.seed)
        loss_of = partial(self._mean_loss, model)
        if options.objective == "npo":
            before = base_log_probabilities(model, self.examples, chosen.batch_size)
            loss_of = partial(npo_batch_loss, model, before=before, beta=options.npo_beta)
        steps = chosen.step_count(len(self.examples))

        def next_loss() -> Tensor:
            return loss_of(next(batches))

        return tune(
            model, model.parameters(), next_loss, steps, direction, anchors, options, progress
        )

    def value(self, _name: str, tensor: Tensor) -> Tensor:
        """Return a tensor of the tuned model to write: unchanged."""
        return tensor

    def _mean_loss(self, model: Any, examples: Sequence[Example]) -> Tensor:
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
    model: Any, examples: Sequence[Example], size: int
) -> dict[Example, float]:
    """Compute each response's log-probability under a model, ``size`` examples at a time."""
    found: dict[Example, float] = {}
    for batch in in_batches(examples, size):
        with torch.no_grad():
            likely = log_probabilities(model, pad(batch, model.device))
        found |= zip(batch, likely.tolist(), strict=True)
    return found
