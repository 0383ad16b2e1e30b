"""A causal language model in transformers whose decoder layers run one at a time.

The model's own code runs unchanged. Its layers, its embedding and its output head are entered
through stand-ins that fetch the weights, so a layer's weights need to be there only while it runs.
The layers can be left out of a run of the model: up to them, its code gives what the first layer
takes, and after them, it turns what the last layer gave into logits.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from patchc.errors import UnsupportedInputError
from patchc.layered.model_ends import Choose, ModelEnds
from patchc.layered.model_parts import ModelParts
from patchc.layered.output_head import BLOCK_BYTES, ChosenLogProbabilities
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

    def without_states(self) -> Entry:
        """Return it without the states, where nobody will ask for them again."""
        return Entry(torch.empty(0), self.arguments)


class LayeredModel:
    """A model that is called like the one in transformers, and whose layers also run singly.

    Attributes:
        parts: its modules and the names of their tensors.
        weights: where the tensors' values are.
        config: transformers' configuration.
        device: where it computes.
        ends: its embedding and its head.
    """

    def __init__(
        self, parts: ModelParts, weights: Weights, device: torch.device, autocast: bool
    ) -> None:
        self.parts = parts
        self.ends = ModelEnds(parts, weights, autocast)
        self.config = parts.model.config
        self.device = device
        self._autocast = autocast
        self._inside = False
        self._in_tuples = False
        self._enter_layer: Callable[..., Any] | None = None
        self._tail_is_known = parts.head.bias is None
        # The modules do not keep this alive: in a circle, weights would stay until Python looks.
        this: Any = weakref.proxy(self)
        self._forwards = [layer.forward for layer in parts.layers]
        for number, layer in enumerate(parts.layers):
            layer.forward = partial(LayeredModel._enter, this, number)

    def __call__(self, **inputs: Any) -> Any:
        """Run the whole model, layer by layer; gradients only go as far as the last run asks."""
        with self._computing():
            return self.parts.model(**inputs)

    @property
    def weights(self) -> Weights:
        """Where the tensors' values are."""
        return self.ends.weights

    @weights.setter
    def weights(self, weights: Weights) -> None:
        self.ends.weights = weights

    def log_probabilities(self, choose: Choose, ids: Tensor, **inputs: Any) -> Tensor:
        """Compute the log-probabilities of chosen tokens at some places.

        Where the logits of all places would take much memory, they are computed block by block.

        Args:
            choose: takes the places.
            ids: int64 [places, n], the tokens of each place.
            inputs: those of the model.

        Returns:
            fp32 [places, n].
        """
        ends, few = self.ends, 4 * len(ids) * self.parts.head.out_features <= BLOCK_BYTES
        if few or not self._tail_is_known:
            with ends.choosing(choose):
                logits = self(**inputs).logits.float()
            return torch.log_softmax(logits, dim=-1).gather(-1, ids)
        # Its way through the model's own code shows what the model does to logits.
        sample = torch.linspace(-50, 50, 7, device=self.device).expand(len(ids), 7)
        with ends.choosing(choose, sample):
            seen = self(**inputs).logits
        if not torch.equal(seen, ends.tail(sample)):
            self._tail_is_known = False
            return self.log_probabilities(choose, ids, **inputs)
        states = ends.pop_chosen()
        found: Tensor = ChosenLogProbabilities.apply(  # type: ignore[no-untyped-call]
            states, ids, ends.head_rows(), ends.product_dtype(states)
        )
        return found

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
        passed = torch.empty(0)

        def note(number: int, states: Tensor, *args: Any, **kwargs: Any) -> Any:
            nonlocal passed
            if number != len(found) or (found and states is not passed):
                raise _OtherStatesError
            if not found:
                first.append(states)
                # What is computed of it needs gradients, and is recognised by that.
                passed = states.detach().requires_grad_()
            found.append((args, kwargs))
            if number == len(self.parts.layers) - 1:
                raise _LastLayerError
            return (passed,) if self._in_tuples else passed

        cause: Exception | None = None
        for in_tuples in (self._in_tuples, not self._in_tuples):
            self._in_tuples = in_tuples
            found.clear()
            first.clear()
            try:
                with self._entering(note), torch.enable_grad():
                    loss()
            except _LastLayerError:
                self._check(found)
                return Entry(first[0], tuple(found))
            except _OtherStatesError:
                continue
            except (AttributeError, TypeError, IndexError, ValueError, RuntimeError) as error:
                if not found:  # no result of a layer was looked at yet
                    raise
                cause = error
        raise self._not_in_order() from cause

    def run_layer(
        self, number: int, weights: Mapping[str, Tensor], states: Tensor, entry: Entry
    ) -> Tensor:
        """Run one layer; [rows, columns, hidden] in and out.

        Raises:
            UnsupportedInputError: the layer leaves states for those after it.
        """
        args, kwargs = entry.arguments[number]
        before = len(list(_tensors([*args, *kwargs.values()])))
        with self._computing():
            result = self._call(number, weights, (states, *args), kwargs)
        if len(list(_tensors([*args, *kwargs.values()]))) != before:
            raise self._sharing()
        self._in_tuples = isinstance(result, tuple)
        output: Tensor = result[0] if self._in_tuples else result
        return output

    def leave(self, loss: Callable[[], T], states: Tensor) -> T:
        """Compute a loss, or what else calls the model, from the output of the last layer.

        Raises:
            UnsupportedInputError: the model runs its layers more than once.
        """
        last = len(self.parts.layers) - 1
        due = iter(range(last + 1))

        def give(number: int, passed: Tensor, *_args: Any, **_kwargs: Any) -> Any:
            if number != next(due, None):
                raise self._not_in_order()
            given = states if number == last else passed
            return (given,) if self._in_tuples else given

        with self.ends.not_embedding(), self._entering(give):
            return loss()

    def _check(self, arguments: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> None:
        for args, kwargs in arguments:
            for value in _tensors([*args, *kwargs.values()]):
                if value.requires_grad:
                    raise self._sharing()

    def _sharing(self) -> UnsupportedInputError:
        return UnsupportedInputError(
            f"the layers of {type(self.parts.model).__name__} share states that need gradients; "
            "patchc cannot derive for this architecture"
        )

    def _not_in_order(self) -> UnsupportedInputError:
        return UnsupportedInputError(
            f"{type(self.parts.model).__name__} does not pass its layers one after another, so "
            "patchc cannot run them singly; it cannot derive for this architecture"
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
        return self._call(number, weights, args, kwargs)

    def _call(
        self,
        number: int,
        weights: Mapping[str, Tensor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run a layer's own code with these weights."""
        self._inside = True
        try:
            return functional_call(self.parts.layers[number], dict(weights), args, kwargs)
        finally:
            self._inside = False


class _OtherStatesError(Exception):
    """A layer did not get what the one before it gave."""


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            yield from _tensors(value.values())
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
