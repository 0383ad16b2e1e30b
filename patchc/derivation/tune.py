"""Full-parameter fine-tuning of one direction: ascent or descent on the same loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from patchc.derivation.examples import Example, mean_loss, pad, shuffled
from patchc.derivation.options import DeriveOptions, Direction
from patchc.errors import DeriveError, MissingExtraError
from patchc.progress import Progress, ProgressEvent


@dataclass(frozen=True)
class Tuning:
    """What a fine-tune did.

    Attributes:
        losses: mean loss of the batch before each step.
        ceiling_loss: the loss that reached the ceiling and ended the tuning; None where all steps
            were taken.
    """

    losses: tuple[float, ...]
    ceiling_loss: float | None

    @property
    def last_loss(self) -> float:
        """Mean loss of the last batch seen."""
        return self.losses[-1] if self.ceiling_loss is None else self.ceiling_loss


def tune(
    model: Any,
    examples: list[Example],
    direction: Direction,
    options: DeriveOptions,
    progress: Progress,
) -> Tuning:
    """Train all parameters in place: "se" ascends the loss of the responses, "osm" descends it.

    AdamW without weight decay, so that the delta comes from the data alone. A batch whose loss
    reaches the ceiling ends the tuning before its step.

    Raises:
        DeriveError: a loss or gradient is not finite, or the first batch reaches the ceiling.
    """
    chosen = options.tuning(direction)
    total = chosen.step_count(len(examples))
    ceiling = math.inf if chosen.loss_ceiling is None else chosen.loss_ceiling
    parameters = list(model.parameters())
    optimizer = _optimizer(parameters, options, chosen.learning_rate)
    batches = shuffled(examples, chosen.batch_size, options.seed)
    losses: list[float] = []
    for step in range(1, total + 1):
        loss = mean_loss(model, pad(next(batches), model.device), options.precision)
        value = loss.item()
        progress(ProgressEvent(f"tune {direction}", step, total, "steps", f"loss {value:.3f}"))
        if value >= ceiling:
            return Tuning(_started(losses, value, direction), value)
        torch.autograd.backward(-loss if direction == "se" else loss)
        norm = torch.nn.utils.clip_grad_norm_(parameters, chosen.clip or math.inf)
        _check_finite(value, norm.item(), direction, step)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value)
    return Tuning(tuple(losses), None)


def _optimizer(
    parameters: list[torch.nn.Parameter], options: DeriveOptions, learning_rate: float
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


def _started(losses: list[float], value: float, direction: Direction) -> tuple[float, ...]:
    if not losses:
        raise DeriveError(
            f"{direction}: the base's own loss is {value:.3f}, at or above the loss ceiling, so no "
            "step was taken; raise the ceiling"
        )
    return tuple(losses)


def _check_finite(loss: float, norm: float, direction: Direction, step: int) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise DeriveError(
            f"{direction}: the loss is {loss} and its gradient's norm {norm} at step {step}; lower "
            "the learning rate, or set a loss ceiling"
        )
