"""Stand-ins for a model's input embedding and output head, which ask for the rows they need."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from patchc.layered.model_parts import ModelParts
from patchc.layered.output_head import BlockLinear, HeadRows, Tail
from patchc.layered.weights import Weights

Choose = Callable[[Tensor], Tensor]
"""Takes the states of some places, [places, hidden], out of [rows, columns, hidden]."""


class ModelEnds:
    """The embedding and the head of a model.

    Attributes:
        weights: where their rows are.
        take_rows: called with ids and their gradients when those of the embedding are complete.
        take_block: called with a first row and the gradients of the head's rows from there on.
        tail: what the model does to logits, as far as its configuration tells.
    """

    def __init__(self, parts: ModelParts, weights: Weights, autocast: bool) -> None:
        self.weights = weights
        self.take_rows: Callable[[Tensor, Tensor], None] | None = None
        self.take_block: Callable[[int, Tensor], None] | None = None
        self.tail = Tail.of(parts.model.config)
        self._parts = parts
        self._autocast = autocast
        self._embed = parts.embedding.forward
        self._embeds = True
        self._choose: Choose | None = None
        self._sample: Tensor | None = None
        self._chosen: Tensor | None = None
        # The modules do not keep this alive: in a circle, weights would stay until Python looks.
        this: Any = weakref.proxy(self)
        parts.embedding.forward = partial(ModelEnds._embedded, this)
        parts.head.forward = partial(ModelEnds._logits, this)

    @contextmanager
    def not_embedding(self) -> Iterator[None]:
        """Let the embedding give what nobody may look at."""
        self._embeds = False
        try:
            yield
        finally:
            self._embeds = True

    @contextmanager
    def choosing(self, choose: Choose, sample: Tensor | None = None) -> Iterator[None]:
        """Let the head give the logits of chosen places, or in their stead a sample."""
        self._choose, self._sample = choose, sample
        try:
            yield
        finally:
            self._choose = self._sample = None

    def pop_chosen(self) -> Tensor:
        """Return the states of the chosen places that a sample stood for."""
        states, self._chosen = self._chosen, None
        assert states is not None
        return states

    def head_rows(self) -> HeadRows:
        """Return the rows of the head."""
        head = self._parts.head
        read = partial(self.weights.rows, self._parts.head_name)
        return HeadRows(head.out_features, head.in_features, read, self.take_block, self.tail)

    def product_dtype(self, states: Tensor) -> torch.dtype:
        """Return the dtype in which the head computes."""
        return torch.bfloat16 if self._autocast else states.dtype

    def _embedded(self, ids: Tensor) -> Tensor:
        """Embed ids; only the rows of those that occur are read, and have gradients."""
        module = self._parts.embedding
        if not self._embeds:
            shape = (*ids.shape, module.embedding_dim)
            # Whoever does look gets a loss that is not finite, which is refused.
            return torch.full(shape, torch.nan, dtype=self.weights.dtype, device=ids.device)
        occurring, places = torch.unique(ids, return_inverse=True)
        rows = self.weights.picked(self._parts.embedding_name, occurring)
        if self.take_rows is not None and torch.is_grad_enabled():
            take, leaf = self.take_rows, rows.requires_grad_()
            leaf.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda leaf: take(occurring, pop_gradient(leaf))
            )
        stated = module.padding_idx
        try:
            # Padding has no gradient; here it is the number of its row.
            module.padding_idx = None
            if stated is not None:
                found = (occurring == stated).nonzero()
                module.padding_idx = int(found[0]) if len(found) else None
            with _weight_of(module, rows):
                embedded: Tensor = self._embed(places)
        finally:
            module.padding_idx = stated
        return embedded

    def _logits(self, states: Tensor) -> Tensor:
        """Compute the logits of all or of the chosen places, or give what stands for them."""
        if self._choose is not None:
            states = self._choose(states)
        if self._sample is not None:
            self._chosen = states
            return self._sample
        head = self._parts.head
        flat = states.reshape(-1, head.in_features)
        logits: Tensor = BlockLinear.apply(  # type: ignore[no-untyped-call]
            flat, self.head_rows(), self.product_dtype(states)
        )
        if head.bias is not None:
            logits = logits + head.bias.to(logits.dtype)
        return logits.view(*states.shape[:-1], head.out_features)


@contextmanager
def _weight_of(module: torch.nn.Module, rows: Tensor) -> Iterator[None]:
    """Let a module have another weight for a while."""
    before = module._parameters.pop("weight")
    module.weight = rows
    try:
        yield
    finally:
        del module.weight
        module._parameters["weight"] = before


def pop_gradient(leaf: Tensor) -> Tensor:
    """Take a tensor's gradient from it."""
    gradient = leaf.grad
    assert gradient is not None
    leaf.grad = None
    return gradient
