"""Gradients of scales, taken from those of the weights as a pass gives them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchc.selection.selected_entries import TensorEntries

_Chosen = slice | NDArray[np.bool_]


class ScaleGradients:
    """Sums ⟨∂L/∂W, ∂W/∂scale⟩ over entries; a :class:`patchc.layered.passes.Collector`.

    The rounding of W is left out of the derivative. A tied embedding's gradients as an embedding
    are summed apart from those as a head: they come first or last, as the losses pass the model
    together or one by one, and the sum is to be the same.

    Args:
        entries: by the names of the model's parameters.
    """

    def __init__(self, entries: Mapping[str, TensorEntries]) -> None:
        self.wanted: Collection[str] = entries.keys()
        self._entries = entries
        self._found = {name: np.zeros((2, each.scales)) for name, each in entries.items()}

    def by_tensor(self) -> dict[str, list[float]]:
        """Return the gradients of each tensor's scales, by the name that the base stores."""
        return {
            each.tensor.name: self._found[name].sum(axis=0).tolist()
            for name, each in self._entries.items()
        }

    def begin(self, names: Collection[str]) -> None:
        """See :class:`patchc.layered.passes.Collector`."""

    def add(self, name: str, gradient: Tensor) -> None:
        """See :class:`patchc.layered.passes.Collector`."""
        self._add(name, 0, gradient.reshape(-1), self._positions(name), slice(None))

    def add_block(self, name: str, first_row: int, gradient: Tensor) -> None:
        """See :class:`patchc.layered.passes.Collector`."""
        positions, first = self._positions(name), first_row * gradient.shape[1]
        inside = slice(*np.searchsorted(positions, [first, first + gradient.numel()]))
        self._add(name, 0, gradient.reshape(-1), positions[inside] - first, inside)

    def add_rows(self, name: str, rows: Tensor, gradient: Tensor) -> None:
        """See :class:`patchc.layered.passes.Collector`."""
        columns = gradient.shape[1]
        row, column = np.divmod(self._positions(name), columns)
        known = rows.cpu().numpy()
        place = np.searchsorted(known, row).clip(max=len(known) - 1)
        inside = known[place] == row
        places = (place * columns + column)[inside]
        self._add(name, 1, gradient.reshape(-1), places, inside)

    def finish(self, names: Collection[str]) -> None:
        """See :class:`patchc.layered.passes.Collector`."""

    def _positions(self, name: str) -> NDArray[np.int64]:
        """Return where a tensor's entries lie; storing this would double the memory."""
        return self._entries[name].found.positions.astype(np.int64)

    def _add(
        self, name: str, kind: int, flat: Tensor, places: NDArray[np.int64], chosen: _Chosen
    ) -> None:
        with torch.no_grad():
            taken = flat[torch.from_numpy(places).to(flat.device)].float().cpu().numpy()
        for number, direction in enumerate(self._entries[name].directions()):
            self._found[name][kind, number] += float(np.dot(taken, direction[chosen]))
