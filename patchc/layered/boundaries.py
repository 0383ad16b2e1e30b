"""The states between the layers of a model, in memory or in a scratch file."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from patchc.layered.scratch import Scratch


class Boundaries(Protocol):
    """The states of several losses at the layers' boundaries, and the gradients on the way back.

    Boundary n is the input of layer n; the last one is the output of the last layer.

    Attributes:
        forward: how many boundaries hold the states of all losses.
        back: how many boundaries, from the last one on, have had their gradients.
    """

    forward: int
    back: int

    def put(self, index: int, states: Tensor) -> None:
        """Keep the states of a loss at boundary ``forward``."""

    def get(self, index: int, boundary: int) -> Tensor:
        """Return the states of a loss, with no graph."""

    def put_gradient(self, index: int, gradient: Tensor) -> None:
        """Keep the gradient of a loss at the next boundary on the way back."""

    def gradient(self, index: int) -> Tensor:
        """Return the gradient of a loss at the boundary that the way back has reached."""

    def forget(self, boundary: int) -> None:
        """Take note that nobody will ask for a boundary again."""

    def went_forward(self) -> None:
        """Take note that the states of all losses at boundary ``forward`` are there."""

    def went_back(self) -> None:
        """Take note that the gradients of all losses at the next boundary are there."""


class HeldBoundaries:
    """Boundaries in memory; each is held until the way back has passed it."""

    def __init__(self) -> None:
        self.forward = 0
        self.back = 0
        self._states: list[dict[int, Tensor]] = []
        self._gradients: dict[int, Tensor] = {}
        self._next_gradients: dict[int, Tensor] = {}

    def put(self, index: int, states: Tensor) -> None:
        """See :class:`Boundaries`."""
        if len(self._states) == self.forward:
            self._states.append({})
        self._states[self.forward][index] = states

    def get(self, index: int, boundary: int) -> Tensor:
        """See :class:`Boundaries`."""
        return self._states[boundary][index].detach()

    def put_gradient(self, index: int, gradient: Tensor) -> None:
        """See :class:`Boundaries`."""
        self._next_gradients[index] = gradient

    def gradient(self, index: int) -> Tensor:
        """See :class:`Boundaries`."""
        return self._gradients[index]

    def forget(self, boundary: int) -> None:
        """See :class:`Boundaries`."""
        self._states[boundary].clear()

    def went_forward(self) -> None:
        """See :class:`Boundaries`."""
        self.forward += 1

    def went_back(self) -> None:
        """See :class:`Boundaries`."""
        self.back += 1
        self._gradients, self._next_gradients = self._next_gradients, {}
        self._states.pop()


class ScratchBoundaries:
    """Boundaries in a scratch file.

    Args:
        scratch: the folder.
        dtype: of the states.
        layers: number of layers.
        device: where states are given out.
        name: of the file, and of what is noted.
        resumes: whether a later run goes on from the last boundary that was noted.
        goes_back: whether gradients are to come; without them, a boundary takes the place of the
            one before the last.
    """

    def __init__(
        self,
        scratch: Scratch,
        dtype: torch.dtype,
        layers: int,
        device: torch.device,
        name: str,
        resumes: bool,
        goes_back: bool = True,
    ) -> None:
        self._scratch = scratch
        self._goes_back = goes_back
        self._dtype = dtype
        self._layers = layers
        self._device = device
        self._name = name
        self._resumes = resumes
        known = scratch.notes.get(name) if resumes else None
        known = known or {"forward": 0, "back": 0, "shapes": []}
        self.forward, self.back = known["forward"], known["back"]
        self._shapes = [tuple(shape) for shape in known["shapes"]]
        self._lay_out()
        self._file = scratch.file(name, self._bytes)

    def put(self, index: int, states: Tensor) -> None:
        """See :class:`Boundaries`."""
        if not self.forward:
            # Their shapes give the size of the file, so it grows with them.
            self._shapes.append(tuple(states.shape))
            self._lay_out()
            self._file.extend(self._stride)
        self._write(self._start(self.forward), index, states)

    def get(self, index: int, boundary: int) -> Tensor:
        """See :class:`Boundaries`."""
        return self._read(self._start(boundary), index)

    def put_gradient(self, index: int, gradient: Tensor) -> None:
        """See :class:`Boundaries`."""
        # In turn at two places, so that a kill leaves the gradients that a layer starts from.
        self._write(self._gradients_at + (self.back + 1) % 2 * self._stride, index, gradient)

    def gradient(self, index: int) -> Tensor:
        """See :class:`Boundaries`."""
        return self._read(self._gradients_at + self.back % 2 * self._stride, index)

    def forget(self, _boundary: int) -> None:
        """See :class:`Boundaries`; the file has room for all."""

    def went_forward(self) -> None:
        """See :class:`Boundaries`."""
        self._file.extend(self._bytes)
        self.forward += 1
        self._note()

    def went_back(self) -> None:
        """See :class:`Boundaries`."""
        self.back += 1
        self._note()

    def _note(self) -> None:
        if self._resumes:
            noted = {"forward": self.forward, "back": self.back, "shapes": self._shapes}
            self._scratch.note(**{self._name: noted})

    def _lay_out(self) -> None:
        sizes = [math.prod(shape) * self._dtype.itemsize for shape in self._shapes]
        self._places = list(accumulate(sizes, initial=0))
        self._stride = self._places.pop()
        self._gradients_at = (self._layers + 1) * self._stride
        self._bytes = (self._layers + 3 if self._goes_back else 2) * self._stride

    def _start(self, boundary: int) -> int:
        start: int = (boundary if self._goes_back else boundary % 2) * self._stride
        return start

    def _write(self, start: int, index: int, states: Tensor) -> None:
        values = states.detach().to("cpu", self._dtype).contiguous()
        self._file.write(start + self._places[index], values)

    def _read(self, start: int, index: int) -> Tensor:
        states = torch.empty(self._shapes[index], dtype=self._dtype)
        self._file.read(start + self._places[index], states)
        return states.to(self._device)
