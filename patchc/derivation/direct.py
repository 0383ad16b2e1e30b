"""Direct tuning: the margin of refusal itself, on labelled requests without answers."""

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
from patchc.derivation.margin import Labelled, hinge_loss, refusal_margin, softplus_loss
from patchc.derivation.openings import Openings
from patchc.derivation.retained import RetainedEntries
from patchc.derivation.scores import scored_tensors
from patchc.derivation.tune import Tuning, tune
from patchc.errors import DeriveError
from patchc.progress import Progress, ignore_progress
from patchc.recipe import checks


def tune_margin(
    model: Any,
    labelled: Sequence[Labelled],
    openings: Openings,
    anchors: Sequence[Anchor],
    options: DeriveOptions,
    progress: Progress = ignore_progress,
    entries: RetainedEntries | None = None,
) -> Tuning:
    """Raise the margin of requests to refuse and lower that of the others, in place.

    The loss is max(0, target − y · margin), averaged over batches of which half are requests to
    refuse. Only the tensors to score are trained, by default the decoder's linear layers: a patch
    ships nothing else.

    Args:
        model: a causal language model whose parameters are all trainable, as they are again
            afterwards; in fp32, unless there are ``entries``.
        labelled: requests of both kinds.
        openings: how the model's refusals begin.
        anchors: of the same model as it is; may be empty.
        options: those of the objective "margin".
        progress: called after each step.
        entries: those to train; None trains the tensors whole.

    Raises:
        DeriveError: one kind of request is missing, or a loss or gradient is not finite.
        UsageError: the options are another objective's, or leave no tensor.
    """
    checks.choice("objective", options.objective, ("margin",))
    chosen = options.margin
    if entries is not None:
        # So many fewer entries have to do the same work.
        rate = chosen.learning_rate / options.retain
        options = replace(options, margin=replace(chosen, learning_rate=rate))
    trained = scored_tensors(dict(model.named_parameters()), options)
    batches = _balanced(labelled, chosen.batch_size, options.seed)

    def next_loss() -> Tensor:
        batch = next(batches)
        return hinge_loss(*_margins(model, batch, openings, options), options.margin_target).mean()

    model.requires_grad_(False)
    for parameter in trained.values():
        parameter.requires_grad_(True)
    try:
        return tune(
            model,
            trained.values() if entries is None else entries.deltas.values(),
            next_loss,
            chosen.step_count(len(labelled)),
            "margin",
            list(anchors),
            options,
            progress,
            moved=None if entries is None else entries.write,
        )
    finally:
        model.requires_grad_(True)


@dataclass
class MarginTuning:
    """A derivation from labelled requests, by the objective "margin"."""

    labelled: Sequence[Labelled]
    openings: Openings
    options: DeriveOptions
    entries: RetainedEntries | None = None

    def sample_losses(self, model: Any) -> list[Callable[[], Tensor]]:
        """For the scores: log(1 + exp(−y · margin)) of single requests, as many of either kind.

        Not the tuning's own loss, whose gradient vanishes where it has succeeded.
        """
        order = random.Random(self.options.seed)
        kinds = [order.sample(kind, len(kind)) for kind in _kinds(self.labelled)]
        mixed = [one for pair in zip_longest(*kinds) for one in pair if one]
        return [partial(self._loss, model, one) for one in mixed[: self.options.score_samples]]

    def tune(
        self, model: Any, _direction: Direction, anchors: list[Anchor], progress: Progress
    ) -> Tuning:
        """See :func:`tune_margin`."""
        options = self.options
        if options.retain < 1:
            trained = scored_tensors(dict(model.named_parameters()), options)
            self.entries = RetainedEntries(trained, options.retain, options.seed)
        try:
            return tune_margin(
                model, self.labelled, self.openings, anchors, options, progress, self.entries
            )
        finally:
            if self.entries is not None:
                self.entries.close()

    def value(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of the tuned model as it is to be written, before any rounding."""
        if self.entries is None or name not in self.entries.deltas:
            return tensor
        return self.entries.values(name)

    def _loss(self, model: Any, one: Labelled) -> Tensor:
        return softplus_loss(*_margins(model, [one], self.openings, self.options)).sum()


def _margins(
    model: Any, batch: Sequence[Labelled], openings: Openings, options: DeriveOptions
) -> tuple[Tensor, Tensor]:
    prompts = [one.prompt for one in batch]
    margins = refusal_margin(model, prompts, openings, options.precision)
    return margins, torch.tensor([one.refuse for one in batch], device=margins.device)


def _balanced(labelled: Sequence[Labelled], size: int, seed: int) -> Iterator[list[Labelled]]:
    """Endless batches, half of them requests to refuse; of an odd size, one more."""
    refuse, answer = _kinds(labelled)
    halves = shuffled(refuse, size - size // 2, seed), shuffled(answer, size // 2, seed)
    return ([*some, *others] for some, others in zip(*halves, strict=True))


def _kinds(labelled: Sequence[Labelled]) -> tuple[list[Labelled], list[Labelled]]:
    refuse = [one for one in labelled if one.refuse]
    answer = [one for one in labelled if not one.refuse]
    if not refuse or not answer:
        raise DeriveError(
            f"margin: {len(refuse)} requests to refuse and {len(answer)} to answer; it takes both"
        )
    return refuse, answer
