"""A loaded base whose selected entries are set to what a build with given scales would write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from patchc.derivation.gradients import on_gradient
from patchc.dtypes import Words
from patchc.errors import UnsupportedInputError
from patchc.selection.selected_entries import TensorEntries, values_of

Scales = Mapping[str, Sequence[np.float32]]
"""Of each tensor, the factor of each component's delta."""


class LiveModel:
    """A model on a device, the same as the base until scales are set.

    Args:
        model: the loaded base; only the tensors of ``entries`` get gradients.
        tensors: its parameters by the names that the base stores.
        entries: of each tensor that takes part, the entries that scales move.

    Raises:
        UnsupportedInputError: a tensor that takes part is no parameter of the model.
    """

    def __init__(
        self, model: Any, tensors: Mapping[str, Tensor], entries: Mapping[str, TensorEntries]
    ) -> None:
        self.model = model
        self.entries = entries
        self._tensors: dict[str, torch.nn.Parameter] = {}
        for name in entries:
            tensor = tensors.get(name)
            if not isinstance(tensor, torch.nn.Parameter) or not tensor.is_contiguous():
                raise UnsupportedInputError(
                    f"tensor {name!r} is not a parameter of the loaded model; exclude it"
                )
            self._tensors[name] = tensor

    def set(self, scales: Scales) -> None:
        """Write the words of a point, bit for bit those of a build with these scales.

        Raises:
            NumericError: a value is not finite; the tensors before it are set.
        """
        for name, each in self.entries.items():
            self._write(name, each.merged(scales[name]))

    def restore(self) -> None:
        """Write the base's words back, bit for bit."""
        for name, each in self.entries.items():
            self._write(name, each.found.base)

    @contextmanager
    def slopes(self) -> Iterator[dict[str, list[float]]]:
        """Collect ∂loss/∂scale of every tensor's scales while losses are taken back.

        ⟨∂L/∂W, ∂W/∂scale⟩ over the entries, the rounding of W left out of the derivative. A
        gradient is released as soon as its products are taken: one is held at a time.
        """
        found = {name: [0.0] * each.scales for name, each in self.entries.items()}
        trained = {id(tensor) for tensor in self._tensors.values()}
        handles: list[RemovableHandle] = []
        before = [(p, p.requires_grad) for p in self.model.parameters()]
        for parameter, _ in before:
            parameter.requires_grad_(id(parameter) in trained)
        for name, tensor in self._tensors.items():
            handles.append(on_gradient(tensor, self._adder(name, found[name])))
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()
            for parameter, wanted in before:
                parameter.grad = None
                parameter.requires_grad_(wanted)

    def _adder(self, name: str, sums: list[float]) -> Callable[[Tensor], None]:
        def add(parameter: Tensor) -> None:
            assert parameter.grad is not None
            with torch.no_grad():
                gradient = parameter.grad.view(-1)[self._places(name)].float().cpu()
            parameter.grad = None
            for number, direction in enumerate(self.entries[name].directions()):
                sums[number] += float(np.dot(gradient.numpy(), direction))

        return add

    def _write(self, name: str, words: Words) -> None:
        tensor = self._tensors[name]
        values = torch.from_numpy(values_of(words, self.entries[name].tensor.dtype.code))
        with torch.no_grad():
            tensor.view(-1)[self._places(name)] = values.to(tensor.device, tensor.dtype)

    def _places(self, name: str) -> Tensor:
        """Where a tensor's entries lie; made anew, since kept they would double what is held."""
        positions = self.entries[name].found.positions.astype(np.int64)
        return torch.from_numpy(positions).to(self._tensors[name].device)
