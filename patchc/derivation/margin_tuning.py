"""Tuning of the margin of refusal, on requests that are labelled to refuse or to answer.

The margin is the log-odds that a reply begins as refusals do, so no written answers are needed. The
tuned model serves for safety enhancement (SE), though it also refuses fewer harmless requests.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from patchc.derivation.anchor import Anchor
from patchc.derivation.derive_options import DeriveOptions, Direction
from patchc.derivation.examples import shuffled
from patchc.derivation.gradients import train_only
from patchc.derivation.margin import Labelled, Openings, hinge_loss, refusal_margin, softplus_loss
from patchc.derivation.retained import RetainedEntries
from patchc.derivation.scores import scored_tensors
from patchc.derivation.tune import Tuning, tune
from patchc.errors import DeriveError
from patchc.progress import Progress
from patchc.recipe import checks


@dataclass
class MarginTuning:
    """A derivation from labelled requests, by the objective "margin".

    Attributes:
        labelled: requests of both kinds.
        openings: how the model's refusals begin.
        options: those of the objective "margin".
        entries: the tuned entries, once tuned; None where tensors are tuned whole.
    """

    labelled: Sequence[Labelled]
    openings: Openings
    options: DeriveOptions
    entries: RetainedEntries | None = None

    def sample_losses(self, model: Any) -> list[Callable[[], Tensor]]:
        """Return functions that compute log(1 + exp(−y · margin)) of one request each, for scores.

        Half of the requests are of each kind. The gradient of the tuning's own loss would vanish
        where the tuning has succeeded.
        """
        order = random.Random(self.options.seed)
        kinds = [order.sample(kind, len(kind)) for kind in self._kinds()]
        mixed = [one for pair in zip_longest(*kinds) for one in pair if one]

        def loss(one: Labelled) -> Tensor:
            return softplus_loss(*self._margins(model, [one])).sum()

        return [partial(loss, one) for one in mixed[: self.options.score_samples]]

    def tune(
        self, model: Any, _direction: Direction, anchors: Sequence[Anchor], progress: Progress
    ) -> Tuning:
        """Raise the margin of requests to refuse and lower that of the others, in place.

        The loss is max(0, target − y · margin), averaged over a batch; half of it are requests to
        refuse. Only the tensors to score are trained, by default the decoder's linear layers, since
        a patch ships nothing else. They are in fp32, unless ``retain`` is below 1.

        Raises:
            DeriveError: one kind of request is missing, no entry is drawn, or a loss or gradient is
                not finite.
            UsageError: the options are another objective's, or leave no tensor.
        """
        options = self.options
        checks.choice("objective", options.objective, ("margin",))
        trained = scored_tensors(dict(model.named_parameters()), options)
        batches = self._balanced_batches()
        steps = options.margin.step_count(len(self.labelled))

        def next_loss() -> Tensor:
            margins, refuse = self._margins(model, next(batches))
            return hinge_loss(margins, refuse, options.margin_target).mean()

        tuned, take, after_step = trained, None, None
        if options.retain < 1:
            entries = self.entries = RetainedEntries(trained, options.retain, options.seed)
            tuned, take, after_step = entries.deltas, entries.take, entries.write
            # Fewer entries have to do the same work, so each moves further.
            rate = options.margin.learning_rate / options.retain
            options = replace(options, margin=replace(options.margin, learning_rate=rate))
        weights = tuned.values()
        with train_only(model, trained, take):
            return tune(
                model, weights, next_loss, steps, "margin", anchors, options, progress, after_step
            )

    def value(self, name: str, tensor: Tensor) -> Tensor:
        """Return a tensor of the tuned model to write, before any rounding."""
        if self.entries is None or name not in self.entries.deltas:
            return tensor
        return self.entries.values(name)

    def _margins(self, model: Any, batch: Sequence[Labelled]) -> tuple[Tensor, Tensor]:
        """Compute the margins of some requests, and tell which should be refused."""
        prompts = [one.prompt for one in batch]
        margins = refusal_margin(model, prompts, self.openings)
        return margins, torch.tensor([one.refuse for one in batch], device=margins.device)

    def _balanced_batches(self) -> Iterator[list[Labelled]]:
        """Yield batches without end, half of each to refuse (one more if its size is odd)."""
        size, seed = self.options.margin.batch_size, self.options.seed
        refuse, answer = self._kinds()
        halves = shuffled(refuse, size - size // 2, seed), shuffled(answer, size // 2, seed)
        return ([*some, *others] for some, others in zip(*halves, strict=True))

    def _kinds(self) -> tuple[list[Labelled], list[Labelled]]:
        refuse = [one for one in self.labelled if one.refuse]
        answer = [one for one in self.labelled if not one.refuse]
        if not refuse or not answer:
            raise DeriveError(
                f"margin: {len(refuse)} requests to refuse and {len(answer)} to answer; it takes "
                "both"
            )
        return refuse, answer
