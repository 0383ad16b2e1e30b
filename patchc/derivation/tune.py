"""The training loop of every fine-tune; it descends or ascends a loss batch by batch.

An anchor, a penalty on moving away from the base on harmless requests, may be added to the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from patchc.derivation.anchor import Anchor, divergence
from patchc.derivation.derive_options import DeriveOptions, Direction
from patchc.derivation.examples import shuffled
from patchc.errors import DeriveError, MissingExtraError
from patchc.progress import Progress, ProgressEvent

_WARM_UP = 3
"""Steps over which the learning rate rises, unless it is constant."""


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


def tune(
    model: Any,
    parameters: Iterable[Parameter],
    next_loss: Callable[[], Tensor],
    steps: int,
    direction: Direction,
    anchors: Sequence[Anchor],
    options: DeriveOptions,
    progress: Progress,
    after_step: Callable[[], None] | None = None,
) -> Tuning:
    """Train parameters in place; ``next_loss`` gives the loss of the next batch, a scalar.

    The pair's safety enhancement (SE) component ascends the loss, everything else descends it.
    AdamW runs without weight decay, so that the delta comes from the data alone. A batch whose loss
    reaches the pair's ceiling ends the tuning before its step. With anchors, the weighted
    divergence from the base is added to the loss.

    Raises:
        DeriveError: a loss or gradient is not finite, or the first batch reaches the ceiling.
    """
    chosen = options.tuning(direction)
    of_pair = options.objective == "pair"
    ceiling = chosen.loss_ceiling if of_pair and chosen.loss_ceiling is not None else math.inf
    trained = list(parameters)
    optimizer = _optimizer(trained, options, chosen.learning_rate)
    schedule = _schedule(optimizer, steps if direction == "margin" else None)
    anchored = shuffled(anchors, min(-(-chosen.batch_size // 3), len(anchors)), options.seed)
    losses: list[float] = []
    divergences: list[float] = []
    for step in range(1, steps + 1):
        loss = next_loss()
        value = loss.item()
        progress(ProgressEvent(f"tune {direction}", step, steps, "steps", f"loss {value:.3f}"))
        if value >= ceiling:
            if not losses:
                raise DeriveError(
                    f"{direction}: the base's own loss is {value:.3f}, at or above the loss "
                    "ceiling, so no step was taken; raise the ceiling"
                )
            return Tuning(tuple(losses), value, tuple(divergences))
        torch.autograd.backward(-loss if of_pair and direction == "se" else loss)
        if anchors:
            away = divergence(model, next(anchored))
            divergences.append(away.item())
            torch.autograd.backward(options.weight_of_anchor * away)
        norm = torch.nn.utils.clip_grad_norm_(trained, chosen.clip or math.inf).item()
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise DeriveError(
                f"{direction}: the loss is {value} and its gradient's norm {norm} at step {step}; "
                "lower the learning rate, or set a loss ceiling"
            )
        optimizer.step()
        schedule.step()
        if after_step:
            after_step()
        optimizer.zero_grad()
        losses.append(value)
    return Tuning(tuple(losses), None, tuple(divergences))


def _optimizer(
    parameters: list[Parameter], options: DeriveOptions, learning_rate: float
) -> torch.optim.Optimizer:
    if options.optimizer == "adamw":
        # Tensor by tensor: the batched update holds one more copy of the weights.
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0, foreach=False)
    try:
        from bitsandbytes import optim
    except ImportError as error:
        raise MissingExtraError(
            "optimizer adamw8bit needs bitsandbytes; install it with "
            "`pip install 'patchc[derive]'`, or choose adamw"
        ) from error
    kind = optim.PagedAdamW8bit if parameters[0].is_cuda else optim.AdamW8bit
    optimizer: torch.optim.Optimizer = kind(parameters, lr=learning_rate, weight_decay=0.0)
    return optimizer


def _schedule(
    optimizer: torch.optim.Optimizer, steps: int | None
) -> torch.optim.lr_scheduler.LambdaLR:
    """Make a constant learning rate, or one that rises for three of ``steps`` and falls to zero.

    A hinge loss has no gradient once it has succeeded, and a constant rate would overshoot.
    """

    def share(step: int) -> float:
        if steps is None:
            return 1.0
        return min((step + 1) / _WARM_UP, max(steps - step, 1) / steps)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)
