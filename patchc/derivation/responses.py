"""Fine-tuning on conversations: their responses are made more or less likely."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from patchc.derivation.anchor import Anchor
from patchc.derivation.derive_options import DeriveOptions, Direction
from patchc.derivation.examples import Example, mean_loss, pad, shuffled
from patchc.derivation.npo import base_log_probabilities, npo_batch_loss
from patchc.derivation.tune import Tuning, tune
from patchc.progress import Progress


@dataclass(frozen=True)
class ResponseTuning:
    """A derivation from conversations, by any objective but "margin"."""

    examples: list[Example]
    options: DeriveOptions

    def sample_losses(self, model: Any) -> list[Callable[[], Tensor]]:
        """For the scores: the mean loss of each response of a random sample."""
        count = min(self.options.score_samples, len(self.examples))
        sample = random.Random(self.options.seed).sample(self.examples, count)
        return [partial(self._mean_loss, model, [one]) for one in sample]

    def tune(
        self, model: Any, direction: Direction, anchors: list[Anchor], progress: Progress
    ) -> Tuning:
        """Train all parameters in place.

        Raises:
            DeriveError: see :func:`patchc.derivation.tune.tune`.
        """
        options, chosen = self.options, self.options.tuning(direction)
        batches = shuffled(self.examples, chosen.batch_size, options.seed)
        loss_of = self._loss(model, chosen.batch_size)
        return tune(
            model,
            model.parameters(),
            lambda: loss_of(next(batches)),
            chosen.step_count(len(self.examples)),
            direction,
            anchors,
            options,
            progress,
        )

    def value(self, _name: str, tensor: Tensor) -> Tensor:
        """A tensor of the tuned model as it is to be written: all are trained as they are."""
        return tensor

    def _loss(self, model: Any, size: int) -> Callable[[list[Example]], Tensor]:
        """The loss of a batch; for NPO the base is asked for its log-probabilities first."""
        options = self.options
        if options.objective == "npo":
            before = base_log_probabilities(model, self.examples, size, options.precision)
            return partial(
                npo_batch_loss,
                model,
                before=before,
                beta=options.npo_beta,
                precision=options.precision,
            )
        return partial(self._mean_loss, model)

    def _mean_loss(self, model: Any, examples: list[Example]) -> Tensor:
        return mean_loss(model, pad(examples, model.device), self.options.precision)
