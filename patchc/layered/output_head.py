"""The output head as a linear layer in blocks of rows, so that it never has to be held whole.

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
class HeadRows:
    """The rows of a head, as its blocks are asked for.

    Attributes:
        rows, columns: the head's shape: vocabulary and hidden size.
        read: gives the rows from a first one up to a last one, on the device.
        take: called with a first row and the gradient of the rows from there on; None if the head
            needs no gradient.
    """

    rows: int
    columns: int
    read: Callable[[int, int], Tensor]
    take: Callable[[int, Tensor], None] | None = None

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
