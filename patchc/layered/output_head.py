"""The output head in blocks of rows, so that neither it nor all logits have to be held at once.

The blocks are fixed by the head's shape, never by a memory budget: a sum over the vocabulary in
blocks has other bits than one in a single product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BLOCK_BYTES = 1 << 27
"""Bytes in fp32 of a block of rows, at most; a single row may have more."""


def block_rows(columns: int) -> int:
    """Count the rows of a block; the last one of a head may have fewer."""
    return max(1, BLOCK_BYTES // (4 * columns))


@dataclass(frozen=True)
class Tail:
    """What a model does to each logit behind its head, by its configuration.

    Attributes:
        scale: it is multiplied by this; None if it is not.
        divisor: it is divided by this; None if it is not.
        cap: it is then drawn within ± this by a hyperbolic tangent; None if it is not.
    """

    scale: float | None = None
    divisor: float | None = None
    cap: float | None = None

    @classmethod
    def of(cls, config: Any) -> Tail:
        """Read a configuration of transformers."""
        names = "logit_scale", "logits_scaling", "final_logit_softcapping"
        return cls(*(getattr(config, name, None) for name in names))

    def __call__(self, logits: Tensor) -> Tensor:
        """Apply it."""
        if self.scale is not None:
            logits = logits * self.scale
        if self.divisor is not None:
            logits = logits / self.divisor
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap

    def backward(self, logits: Tensor, gradient: Tensor) -> Tensor:
        """Take a gradient back through it; ``logits`` are those behind it."""
        if self.cap is not None:
            gradient = gradient * (1 - (logits / self.cap) ** 2)
        if self.divisor is not None:
            gradient = gradient / self.divisor
        return gradient if self.scale is None else gradient * self.scale


@dataclass(frozen=True)
class HeadRows:
    """The rows of a head, as its blocks are asked for.

    Attributes:
        rows, columns: the head's shape: vocabulary and hidden size.
        read: gives the rows from a first one up to a last one, on the device.
        take: called with a first row and the gradient of the rows from there on; None if the head
            needs no gradient.
        tail: what the model does to the logits afterwards.
    """

    rows: int
    columns: int
    read: Callable[[int, int], Tensor]
    take: Callable[[int, Tensor], None] | None
    tail: Tail

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield the first row of each block, and the row behind its last."""
        step = block_rows(self.columns)
        for first in range(0, self.rows, step):
            yield first, min(first + step, self.rows)


class BlockLinear(torch.autograd.Function):
    """Computes states · Wᵀ block by block, and gives the gradient of each block to its taker."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: HeadRows, dtype: torch.dtype) -> Tensor:
        """Compute the logits.

        Args:
            states: [places, hidden].
            head: the rows of W.
            dtype: of the products.

        Returns:
            [places, vocabulary] in ``dtype``.
        """
        ctx.head, ctx.dtype = head, dtype
        ctx.save_for_backward(states)
        inputs = states.to(dtype)
        logits = torch.empty(len(states), head.rows, dtype=dtype, device=states.device)
        for first, last in head.blocks():
            logits[:, first:last] = inputs @ head.read(first, last).to(dtype).t()
        return logits

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Sum the gradients of the states over the blocks, in their order."""
        (states,) = ctx.saved_tensors
        head: HeadRows = ctx.head
        (gradient,) = gradients
        inputs = states.to(ctx.dtype)
        total: Tensor | None = None
        for first, last in head.blocks():
            own = gradient[:, first:last]
            part = own @ head.read(first, last).to(ctx.dtype)
            total = part if total is None else total.add_(part)
            if head.take is not None:
                head.take(first, own.t() @ inputs)
        assert total is not None
        return total.to(states.dtype), None, None


class ChosenLogProbabilities(torch.autograd.Function):
    """Computes log-probabilities of chosen tokens, with the logits of one block at a time.

    The logarithm of the sum over the vocabulary is carried from block to block. On the way back the
    logits are computed once more.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, ids: Tensor, head: HeadRows, dtype: torch.dtype
    ) -> Tensor:
        """Compute log p.

        Args:
            states: [places, hidden].
            ids: int64 [places, n], the chosen tokens of each place.
            head: the rows of W.
            dtype: of the products.

        Returns:
            fp32 [places, n].
        """
        inputs = states.to(dtype)
        most = torch.full((len(states),), -torch.inf, device=states.device)
        total = torch.zeros_like(most)
        chosen = torch.zeros(ids.shape, device=states.device)
        for first, last in head.blocks():
            rows = head.read(first, last).to(dtype)
            for part in _parts(len(states), last - first):
                logits = _logits(head, inputs[part], rows)
                higher = torch.maximum(most[part], logits.amax(dim=1))
                own = torch.exp(logits - higher[:, None]).sum(dim=1)
                total[part] = total[part] * torch.exp(most[part] - higher) + own
                most[part] = higher
                inside, places = _inside(ids[part], first, last)
                chosen[part] += logits.gather(1, places) * inside
        log_total = most + torch.log(total)
        ctx.head, ctx.dtype = head, dtype
        ctx.save_for_backward(states, ids, log_total)
        return chosen - log_total[:, None]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Sum the gradients of the states over the blocks, in their order."""
        states, ids, log_total = ctx.saved_tensors
        head: HeadRows = ctx.head
        (gradient,) = gradients
        inputs = states.to(ctx.dtype)
        found = torch.zeros(states.shape, dtype=ctx.dtype, device=states.device)
        for first, last in head.blocks():
            rows = head.read(first, last).to(ctx.dtype)
            taken = torch.zeros_like(rows) if head.take is not None else None
            for part in _parts(len(states), last - first):
                logits = _logits(head, inputs[part], rows)
                own = torch.exp(logits - log_total[part, None])
                own *= -gradient[part].sum(dim=1, keepdim=True)
                inside, places = _inside(ids[part], first, last)
                rows_of = torch.arange(len(own), device=own.device)
                # Token by token: two of a place may be the same, and adding must have an order.
                for token, column in zip(places.t(), (gradient[part] * inside).t(), strict=True):
                    own[rows_of, token] += column
                own = head.tail.backward(logits, own).to(ctx.dtype)
                found[part] += own @ rows
                if taken is not None:
                    taken += own.t() @ inputs[part]
            if head.take is not None and taken is not None:
                head.take(first, taken)
        return found.to(states.dtype), None, None, None


def _parts(places: int, rows: int) -> Iterator[slice]:
    """Cut places so that the logits of a block are not larger than a block of the head."""
    step = max(1, BLOCK_BYTES // (4 * rows))
    return (slice(first, first + step) for first in range(0, places, step))


def _logits(head: HeadRows, inputs: Tensor, rows: Tensor) -> Tensor:
    return head.tail((inputs @ rows.t()).float())


def _inside(ids: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
    """Tell which ids are in a block, and where in it; the others are put at its start."""
    inside = (ids >= first) & (ids < last)
    return inside, torch.where(inside, ids - first, 0)
