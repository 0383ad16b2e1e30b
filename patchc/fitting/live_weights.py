"""Weights of a fit's model whose entries can be set: all in memory, or laid over the base's files.

Both give the same values. In memory they are the parameters of a loaded model; otherwise the
entries' words are kept apart, and are put into what is read of the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchc.dtypes import Words
from patchc.layered.model_parts import ModelParts
from patchc.layered.sources import Source
from patchc.layered.weights import HeldWeights
from patchc.selection.selected_entries import TensorEntries, values_of


class Settable(Protocol):
    """Takes the words of entries; the model's weights are then told that they have changed."""

    def put(self, name: str, entries: TensorEntries, words: Words) -> None:
        """Set a tensor's entries to words of the base's dtype."""

    def restore(self, name: str, entries: TensorEntries) -> None:
        """Set a tensor's entries to the base's words."""


class LoadedWeights(HeldWeights):
    """The parameters of a model that transformers has loaded, without a copy of them.

    Args:
        parts: the same model, layer by layer.
        tensors: the loaded model's parameters by the names that the base stores, in their order.
    """

    def __init__(self, parts: ModelParts, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(parts, {name: tensors[name].detach() for name in parts.shapes})

    def changed(self) -> None:
        """See :class:`patchc.layered.weights.Weights`."""
        with torch.no_grad():
            for name, parameter in self._parts.rest.items():
                parameter.copy_(self.values[name])

    def put(self, name: str, entries: TensorEntries, words: Words) -> None:
        """See :class:`Settable`."""
        flat = self.values[name].view(-1)
        values = torch.from_numpy(values_of(words, entries.tensor.dtype.code))
        places = torch.from_numpy(entries.found.positions.astype(np.int64)).to(flat.device)
        flat[places] = values.to(flat.device, flat.dtype)

    def restore(self, name: str, entries: TensorEntries) -> None:
        """See :class:`Settable`."""
        self.put(name, entries, entries.found.base)


class Overlay:
    """A source's values with the words of entries laid over them.

    Args:
        source: gives the values of all others.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._laid: dict[str, tuple[NDArray[np.unsignedinteger], Words, int]] = {}

    def put(self, name: str, entries: TensorEntries, words: Words) -> None:
        """See :class:`Settable`."""
        self._laid[name] = entries.found.positions, words, entries.tensor.dtype.code

    def restore(self, name: str, _entries: TensorEntries) -> None:
        """See :class:`Settable`."""
        self._laid.pop(name, None)

    def read(self, name: str, first: int, out: Tensor) -> None:
        """See :class:`patchc.layered.sources.Source`."""
        self._source.read(name, first, out)
        if name not in self._laid:
            return
        positions, words, code = self._laid[name]
        inside = slice(*np.searchsorted(positions, [first, first + out.numel()]))
        places = torch.from_numpy(positions[inside].astype(np.int64) - first)
        out[places] = torch.from_numpy(values_of(words[inside], code)).to(out.dtype)
