"""A causal language model in transformers whose decoder layers run one at a time.

The model's own code runs unchanged. Its layers, its embedding and its output head are entered
through stand-ins that fetch the weights, so a layer's weights need to be there only while it runs.
The layers can be left out of a run of the model: up to them, its code gives what the first layer
takes, and after them, it turns what the last layer gave into logits.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from patchc.errors import UnsupportedInputError
from patchc.layered.model_parts import ModelParts
from patchc.layered.output_head import BlockLinear, HeadRows
from patchc.layered.weights import Weights

T = TypeVar("T")
Loss = Callable[[], Tensor]
"""Computes a scalar; it calls the model exactly once, and the same way each time."""

_FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Attention whose gradients are deterministic where torch is asked for deterministic algorithms."""


class _LastLayerError(Exception):
    """Ends a run of the model whose logits nobody needs."""


@dataclass(frozen=True)
class Entry:
    """What a run of the model gives to its layers.

    Attributes:
        states: the first layer's input, [rows, columns, hidden], with the graph to the embedding.
        arguments: for each layer, its other arguments.
    """

    states: Tensor
    arguments: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]


class LayeredModel:
    """A model that is called like the one in transformers, and whose layers also run singly.

    Attributes:
        parts: its modules and the names of their tensors.
        weights: where the tensors' values are.
        config: transformers' configuration.
        device: where it computes.
        take_rows: called with ids and their gradients when those of the embedding are complete.
        take_block: called with a first row and the gradients of the head's rows from there on.
    """

    def __init__(
        self, parts: ModelParts, weights: Weights, device: torch.device, autocast: bool
    ) -> None:
        self.parts = parts
        self.weights = weights
        self.config = parts.model.config
        self.device = device
        self.take_rows: Callable[[Tensor, Tensor], None] | None = None
        self.take_block: Callable[[int, Tensor], None] | None = None
        self._autocast = autocast
        self._inside = False
        self._in_tuples = False
        self._enter_layer: Callable[..., Any] | None = None
        self._embeds = True
        # The modules do not keep this alive: in a circle, weights would stay until Python looks.
        this: Any = weakref.proxy(self)
        self._forwards = [layer.forward for layer in parts.layers]
        for number, layer in enumerate(parts.layers):
            layer.forward = partial(LayeredModel._enter, this, number)
        self._embed = parts.embedding.forward
        parts.embedding.forward = partial(LayeredModel._embedded, this)
        parts.head.forward = partial(LayeredModel._logits, this)

    def __call__(self, **inputs: Any) -> Any:
        """Run the whole model, layer by layer; gradients only go as far as the last run asks."""
        with self._computing():
            return self.parts.model(**inputs)

    def get_output_embeddings(self) -> torch.nn.Module:
        """Return the output head's module; hooks on it are called."""
        head: torch.nn.Module = self.parts.head
        return head

    def enter(self, loss: Callable[[], object]) -> Entry:
        """Run the model up to its first layer.

        Raises:
            UnsupportedInputError: something happens between the layers, so that they cannot be run
                one at a time.
        """
        found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        first: list[Tensor] = []

        def note(number: int, states: Tensor, *args: Any, **kwargs: Any) -> Any:
            if number == 0:
                first.append(states)
            elif states is not first[0]:
                raise _OtherStatesError
            found.append((args, kwargs))
            if number == len(self.parts.layers) - 1:
                raise _LastLayerError
            return (states,) if self._in_tuples else states

        for in_tuples in (self._in_tuples, not self._in_tuples):
            self._in_tuples = in_tuples
            found.clear()
            first.clear()
            try:
                with self._entering(note):
                    loss()
            except _LastLayerError:
                self._check(found)
                return Entry(first[0], tuple(found))
            except (_OtherStatesError, TypeError, IndexError, ValueError, RuntimeError):
                if in_tuples != self._in_tuples:
                    raise
        raise UnsupportedInputError(
            f"{type(self.parts.model).__name__} does not pass its layers one after another, so "
            "patchc cannot run them singly; it cannot derive for this architecture"
        )

    def run_layer(
        self, number: int, weights: Mapping[str, Tensor], states: Tensor, entry: Entry
    ) -> Tensor:
        """Run one layer; [rows, columns, hidden] in and out."""
        args, kwargs = entry.arguments[number]
        self._inside = True
        try:
            with self._computing():
                layer = self.parts.layers[number]
                result = functional_call(layer, dict(weights), (states, *args), kwargs)
        finally:
            self._inside = False
        self._in_tuples = isinstance(result, tuple)
        output: Tensor = result[0] if self._in_tuples else result
        return output

    def leave(self, loss: Callable[[], T], states: Tensor) -> T:
        """Compute a loss, or what else calls the model, from the output of the last layer."""
        last = len(self.parts.layers) - 1

        def give(number: int, passed: Tensor, *_args: Any, **_kwargs: Any) -> Any:
            given = states if number == last else passed
            return (given,) if self._in_tuples else given

        self._embeds = False
        try:
            with self._entering(give):
                return loss()
        finally:
            self._embeds = True

    def _check(self, arguments: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> None:
        for args, kwargs in arguments:
            for value in _tensors([*args, *kwargs.values()]):
                if value.requires_grad:
                    raise UnsupportedInputError(
                        f"the layers of {type(self.parts.model).__name__} share states that need "
                        "gradients; patchc cannot derive for this architecture"
                    )

    @contextmanager
    def _entering(self, enter: Callable[..., Any]) -> Iterator[None]:
        before, self._enter_layer = self._enter_layer, enter
        try:
            yield
        finally:
            self._enter_layer = before

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with ExitStack() as stack:
            kind = self.device.type
            stack.enter_context(torch.autocast(kind, torch.bfloat16, enabled=self._autocast))
            if kind == "cuda":
                stack.enter_context(sdpa_kernel(_FUSED))
            yield

    def _enter(self, number: int, *args: Any, **kwargs: Any) -> Any:
        if self._inside:
            return self._forwards[number](*args, **kwargs)
        enter = self._enter_layer or self._run_in_order
        return enter(number, *args, **kwargs)

    def _run_in_order(self, number: int, *args: Any, **kwargs: Any) -> Any:
        weights = self.weights.layer(number, (number + 1) % len(self.parts.layers))
        self._inside = True
        try:
            return functional_call(self.parts.layers[number], weights, args, kwargs)
        finally:
            self._inside = False

    def _embedded(self, ids: Tensor) -> Tensor:
        """Embed ids; only the rows of those that occur are read, and have gradients."""
        module, name = self.parts.embedding, self.parts.embedding_name
        if not self._embeds:
            shape = (*ids.shape, module.embedding_dim)
            return torch.zeros(shape, dtype=self.weights.dtype, device=ids.device)
        occurring, places = torch.unique(ids, return_inverse=True)
        rows = self.weights.picked(name, occurring)
        if self.take_rows is not None and torch.is_grad_enabled():
            take, leaf = self.take_rows, rows.requires_grad_()
            leaf.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda leaf: take(occurring, _pop_gradient(leaf))
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
        head, name = self.parts.head, self.parts.head_name
        rows, columns = head.out_features, head.in_features
        read = partial(self.weights.rows, name)
        taken = HeadRows(rows, columns, read, self.take_block)
        flat = states.reshape(-1, columns)
        dtype = torch.bfloat16 if self._autocast else states.dtype
        logits: Tensor = BlockLinear.apply(flat, taken, dtype)  # type: ignore[no-untyped-call]
        if head.bias is not None:
            logits = logits + head.bias.to(logits.dtype)
        return logits.view(*states.shape[:-1], rows)


class _OtherStatesError(Exception):
    """A layer did not get what the one before it gave."""


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


def _tensors(values: list[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(list(value))


def _pop_gradient(leaf: Tensor) -> Tensor:
    gradient = leaf.grad
    assert gradient is not None
    leaf.grad = None
    return gradient
