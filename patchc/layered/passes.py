"""Gradients of several losses, layer by layer: all of them pass a layer before the next is read.

Only the states at the layers' boundaries are kept, and a layer is computed once more when its
gradients are due. The losses' gradients reach a collector in the order of the losses, tensor by
tensor, so what is computed does not depend on what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from patchc.layered.boundaries import Boundaries
from patchc.layered.layered_model import Entry, LayeredModel, Loss
from patchc.layered.model_ends import pop_gradient
from patchc.layered.weights import HeldWeights

T = TypeVar("T")


@dataclass(frozen=True)
class Term:
    """A loss with the weight that its gradients get."""

    loss: Loss
    weight: float = 1.0


class Collector(Protocol):
    """Takes gradients. All are those of one loss, times its weight.

    Attributes:
        wanted: names of the tensors whose gradients are taken.
    """

    wanted: Collection[str]

    def begin(self, names: Collection[str]) -> None:
        """Prepare for the gradients of these tensors, of one loss after another."""

    def add(self, name: str, gradient: Tensor) -> None:
        """Take the gradient of a whole tensor."""

    def add_block(self, name: str, first_row: int, gradient: Tensor) -> None:
        """Take the gradient of some rows of a matrix."""

    def add_rows(self, name: str, rows: Tensor, gradient: Tensor) -> None:
        """Take the gradient of the rows with these numbers; all others have none."""

    def finish(self, names: Collection[str]) -> None:
        """Take note that the gradients of these tensors are complete."""


class Pass:
    """One pass of some losses through a model: forward, then back.

    Args:
        model: the model.
        terms: the losses.
        collector: takes the gradients.
        boundaries: keeps the states between layers; empty, or filled up to where a pass was
            interrupted.
        keeps: whether all that the layers' gradients need is kept, in place of computing each
            layer twice.
        passed: called after each layer with how many have been passed, those of the way back too.
    """

    def __init__(
        self,
        model: LayeredModel,
        terms: Sequence[Term],
        collector: Collector,
        boundaries: Boundaries,
        keeps: bool,
        passed: Callable[[int], None] = lambda _layers: None,
    ) -> None:
        self._model = model
        self._terms = terms
        self._collector = collector
        self._boundaries = boundaries
        self._keeps = keeps
        self._passed = passed
        self._layers = len(model.parts.layers)
        self._graphs: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self._entries: list[Entry] = []
        self._local = [
            {local: name for local, name in names.items() if name in collector.wanted}
            for names in model.parts.layer_names
        ]

    def run(self, accept: Callable[[int, float], bool] | None = None) -> list[float]:
        """Compute the losses and their gradients.

        Args:
            accept: called with each loss's number and value before its gradients are taken; where
                it returns False, the pass ends.

        Returns:
            The values of the losses, without their weights.
        """
        parts, wanted = self._model.parts, self._collector.wanted
        values: list[float] = []
        kept = self._boundaries
        with _Taking(self._model, self._collector):
            self._enter()
            while kept.forward <= self._layers:
                self._forward(kept.forward - 1)
            if not kept.back:
                with self._model.weights.holding(parts.head_name):
                    for index, term in enumerate(self._terms):
                        loss, states = self._leave(index, term)
                        values.append(loss.item())
                        if accept is not None and not accept(index, values[-1]):
                            return values
                        self._backward_of(loss, states, index, term)
                kept.went_back()
            if parts.head_name in wanted and not parts.tied:
                self._collector.finish([parts.head_name])
            while kept.back <= self._layers:
                self._back(self._layers - kept.back)
            self._end()
        return values

    def _enter(self) -> None:
        for index, term in enumerate(self._terms):
            entry = self._model.enter(term.loss)
            if not self._boundaries.forward:
                self._boundaries.put(index, entry.states.detach())
            self._entries.append(entry if entry.states.requires_grad else entry.without_states())
        if not self._boundaries.forward:
            self._boundaries.went_forward()

    def _forward(self, number: int) -> None:
        following = min(number + 1, self._layers - 1)
        weights = self._weights(number, following, self._keeps)
        for index, entry in enumerate(self._entries):
            states = self._boundaries.get(index, number)
            if self._keeps:
                states.requires_grad_()
                output = self._model.run_layer(number, weights, states, entry)
                self._graphs[index, number] = states, output
            else:
                with torch.no_grad():
                    output = self._model.run_layer(number, weights, states, entry)
            self._boundaries.put(index, output.detach())
        self._boundaries.went_forward()
        self._passed(number + 1)

    def _leave(self, index: int, term: Term) -> tuple[Tensor, Tensor]:
        states = self._boundaries.get(index, self._layers).requires_grad_()
        return self._model.leave(term.loss, states), states

    def _backward_of(self, loss: Tensor, states: Tensor, index: int, term: Term) -> None:
        if loss.requires_grad:
            torch.autograd.backward(loss if term.weight == 1 else term.weight * loss)
        gradient = states.grad if states.grad is not None else torch.zeros_like(states)
        self._boundaries.put_gradient(index, gradient)

    def _back(self, number: int) -> None:
        names = list(self._local[number].values())
        self._collector.begin(names)
        weights = self._weights(number, max(number - 1, 0), True)
        for index, entry in enumerate(self._entries):
            if self._keeps:
                states, output = self._graphs.pop((index, number))
            else:
                states = self._boundaries.get(index, number).requires_grad_()
                output = self._model.run_layer(number, weights, states, entry)
            torch.autograd.backward(output, self._boundaries.gradient(index))
            assert states.grad is not None
            self._boundaries.put_gradient(index, states.grad)
            del states, output
        self._collector.finish(names)
        self._boundaries.went_back()
        self._passed(2 * self._layers - number)

    def _weights(self, number: int, following: int, learning: bool) -> dict[str, Tensor]:
        """Fetch a layer's weights; those wanted give their gradients to the collector."""
        weights = self._model.weights.layer(number, following)
        if not learning:
            return weights
        for local, name in self._local[number].items():
            leaf = weights[local].detach().requires_grad_()
            leaf.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                partial(_give, self._collector, name)
            )
            weights[local] = leaf
        return weights

    def _end(self) -> None:
        """Take the gradients of the embedding, and finish everything outside the layers."""
        parts, wanted = self._model.parts, self._collector.wanted
        for index, entry in enumerate(self._entries):
            if entry.states.requires_grad:
                torch.autograd.backward(entry.states, self._boundaries.gradient(index))
        rest = [name for name in parts.rest if name in wanted]
        ends = [parts.embedding_name] if parts.embedding_name in wanted else []
        self._collector.finish([*rest, *ends])


class _Taking:
    """Lets a model give the gradients outside its layers to a collector, for a while."""

    def __init__(self, model: LayeredModel, collector: Collector) -> None:
        self._model = model
        self._collector = collector
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> None:
        model, collector = self._model, self._collector
        parts, wanted = model.parts, collector.wanted
        for name, parameter in parts.rest.items():
            parameter.requires_grad_(name in wanted)
            if name in wanted:
                hook = partial(_give, collector, name)
                self._hooks.append(parameter.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]
        if parts.head_name in wanted:
            model.ends.take_block = partial(collector.add_block, parts.head_name)
        if parts.embedding_name in wanted:
            model.ends.take_rows = partial(collector.add_rows, parts.embedding_name)
        ends = {parts.head_name, parts.embedding_name}
        collector.begin([name for name in (*parts.rest, *ends) if name in wanted])

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        for parameter in self._model.parts.rest.values():
            parameter.requires_grad_(False)
            parameter.grad = None
        self._model.ends.take_block = self._model.ends.take_rows = None


def _give(collector: Collector, name: str, leaf: Tensor) -> None:
    collector.add(name, pop_gradient(leaf))


def evaluate(
    model: LayeredModel, computes: Sequence[Callable[[], T]], boundaries: Boundaries
) -> Iterator[T]:
    """Compute functions of the model without gradients, all of them layer by layer.

    Each calls the model exactly once, and the same way each time. Where all weights are in memory,
    one function after another is computed.
    """
    if isinstance(model.weights, HeldWeights):
        for compute in computes:
            with torch.no_grad():
                found = compute()
            yield found
        return
    with torch.no_grad():
        entries = []
        for index, compute in enumerate(computes):
            entry = model.enter(compute)
            boundaries.put(index, entry.states)
            entries.append(entry.without_states())
        boundaries.went_forward()
        layers = len(model.parts.layers)
        for number in range(layers):
            weights = model.weights.layer(number, (number + 1) % layers)
            for index, entry in enumerate(entries):
                states = boundaries.get(index, number)
                boundaries.put(index, model.run_layer(number, weights, states, entry))
            boundaries.went_forward()
            boundaries.forget(number)
        with model.weights.holding(model.parts.head_name):
            for index, compute in enumerate(computes):
                yield model.leave(compute, boundaries.get(index, layers))
