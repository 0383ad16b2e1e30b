"""A loaded base on which scales are tried, without building and applying a patch.

The entries that the recipe selects are set to exactly what a patch with these scales would write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from patchc.derivation.gradients import pop_gradient, train_only
from patchc.dtypes import Words
from patchc.errors import UnsupportedInputError
from patchc.selection.selected_entries import TensorEntries, values_of

Scales = Mapping[str, Sequence[np.float32]]
"""For each tensor, the scale of each component's delta."""


class LiveModel:
    """A model on a device, the same as the base until scales are set.

    Args:
        model: the loaded base; only the tensors of ``entries`` get gradients.
        tensors: its parameters by the names that the base stores.
        entries: for each tensor that takes part, the entries that scales move.

    Raises:
        UnsupportedInputError: a tensor that takes part is no parameter of the model.
    """

    def __init__(
        self, model: Any, tensors: Mapping[str, Tensor], entries: Mapping[str, TensorEntries]
    ) -> None:
        self.model = model
        self.entries = entries
        self._tensors: dict[str, Parameter] = {}
        for name in entries:
            tensor = tensors.get(name)
            if not isinstance(tensor, Parameter) or not tensor.is_contiguous():
                raise UnsupportedInputError(
                    f"tensor {name!r} is not a parameter of the loaded model; exclude it"
                )
            self._tensors[name] = tensor

    def set(self, scales: Scales) -> None:
        """Write the words of these scales, bit for bit those of a build with them.

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
    def gradients(self) -> Iterator[dict[str, list[float]]]:
        """Collect ∂loss/∂scale of every tensor's scales, as long as the context is open.

        They are ⟨∂L/∂W, ∂W/∂scale⟩ over the entries, without the rounding of W in the derivative.
        Only one tensor's ∂L/∂W is held at a time.
        """
        found = {name: [0.0] * each.scales for name, each in self.entries.items()}

        def add(name: str, parameter: Parameter) -> None:
            with torch.no_grad():
                flat = pop_gradient(parameter).view(-1)[self._places(name)].float().cpu().numpy()
            for number, direction in enumerate(self.entries[name].directions()):
                found[name][number] += float(np.dot(flat, direction))

        with train_only(self.model, self._tensors, add):
            yield found

    def _write(self, name: str, words: Words) -> None:
        tensor = self._tensors[name]
        values = torch.from_numpy(values_of(words, self.entries[name].tensor.dtype.code))
        with torch.no_grad():
            tensor.view(-1)[self._places(name)] = values.to(tensor.device, tensor.dtype)

    def _places(self, name: str) -> Tensor:
        """Find where a tensor's entries lie; storing this would double the memory."""
        positions = self.entries[name].found.positions.astype(np.int64)
        return torch.from_numpy(positions).to(self._tensors[name].device)
