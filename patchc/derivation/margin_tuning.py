"""Tuning of the margin of refusal, on requests that are labelled to refuse or to answer.

The margin is the log-odds that a reply begins as refusals do, so no written answers are needed. The
tuned model serves for safety enhancement (SE), though it also refuses fewer harmless requests.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

import torch
from torch import Tensor

from patchc.derivation.derive_options import DeriveOptions, Direction
from patchc.derivation.examples import Tokens, shuffled
from patchc.derivation.load import Load, of_following
from patchc.derivation.margin import Labelled, Openings, hinge_loss, refusal_margin, softplus_loss
from patchc.derivation.scores import scored_tensors
from patchc.derivation.trained import RetainedEntries, Trained, WholeTensors
from patchc.errors import DeriveError
from patchc.layered.boundaries import Boundaries
from patchc.layered.layered_model import LayeredModel, Loss
from patchc.layered.model_parts import ModelParts
from patchc.layered.sources import BaseSource
from patchc.recipe import checks


@dataclass(frozen=True)
class MarginTuning:
    """A derivation from labelled requests, by the objective "margin".

    Attributes:
        labelled: requests of both kinds.
        openings: how the model's refusals begin.
        options: those of the objective "margin".
    """

    labelled: Sequence[Labelled]
    openings: Openings
    options: DeriveOptions

    def sample_losses(self, model: LayeredModel) -> list[Loss]:
        """Return functions that compute log(1 + exp(−y · margin)) of one request each, for scores.

        Half of the requests are of each kind. The gradient of the tuning's own loss would vanish
        where the tuning has succeeded.
        """

        def loss(one: Labelled) -> Tensor:
            return softplus_loss(*self._margins(model, [one])).sum()

        return [partial(loss, one) for one in self._samples()]

    def trained(self, base: BaseSource, parts: ModelParts, remembers: bool) -> Trained:
        """Return what is trained: the tensors to score, or a random share of their entries.

        A patch ships nothing else. ``remembers`` is that of :class:`RetainedEntries`.

        Raises:
            DeriveError: no entry is drawn.
            UsageError: the options are another objective's, or leave no tensor.
        """
        options = self.options
        checks.choice("objective", options.objective, ("margin",))
        shapes = scored_tensors(parts.shapes, options)
        if options.retain == 1:
            return WholeTensors(base, shapes)
        return RetainedEntries(base, shapes, options.retain, options.seed, remembers)

    def loads(self, _direction: Direction) -> list[Load]:
        """Return what passes the model in a step, at most."""
        prompts = [one.prompt for one in self.labelled]
        return [self._load(prompts, self.options.margin.batch_size)]

    def sample_loads(self) -> list[Load]:
        """Return what passes the model for each sampled request."""
        return [self._load([one.prompt], 1) for one in self._samples()]

    def steps(self, _direction: Direction) -> int:
        """Count the steps."""
        return self.options.margin.step_count(len(self.labelled))

    def rate(self, _direction: Direction) -> float:
        """Return the learning rate: where fewer entries do the same work, each moves further."""
        return self.options.margin.learning_rate / self.options.retain

    def losses(
        self, model: LayeredModel, _direction: Direction, _boundaries: Callable[[], Boundaries]
    ) -> Iterator[Loss]:
        """Return the losses of batches without end; half of each are requests to refuse.

        The loss is max(0, target − y · margin), averaged over a batch.

        Raises:
            DeriveError: one kind of request is missing.
        """

        def loss(batch: Sequence[Labelled]) -> Tensor:
            margins, refuse = self._margins(model, batch)
            return hinge_loss(margins, refuse, self.options.margin_target).mean()

        return (partial(loss, batch) for batch in self._balanced_batches())

    def _load(self, prompts: Sequence[Tokens], requests: int) -> Load:
        stems = self.openings.stems
        return of_following(prompts, stems, requests * len(stems))

    def _samples(self) -> list[Labelled]:
        order = random.Random(self.options.seed)
        kinds = [order.sample(kind, len(kind)) for kind in self._kinds()]
        mixed = [one for pair in zip_longest(*kinds) for one in pair if one]
        return mixed[: self.options.score_samples]

    def _margins(self, model: LayeredModel, batch: Sequence[Labelled]) -> tuple[Tensor, Tensor]:
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
