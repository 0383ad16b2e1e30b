"""Which entries of a model are trained: whole tensors, or a random share of their entries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from patchc.errors import DeriveError
from patchc.kernels.bitmask import unpack, words_for
from patchc.kernels.topk.sampled import mark_retained
from patchc.layered.sources import BaseSource, Source
from patchc.selection.compact.holding import drawn

_STREAM = "model-0"
"""The name under which a merge draws for its only model."""


class Trained(Protocol):
    """The trained entries of a model's tensors.

    Attributes:
        shapes: the shapes of the tensors, by name.
        sizes: how many entries of each are trained.
    """

    shapes: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]

    def pick(self, name: str, run: Tensor, first: int) -> Tensor:
        """Take the trained entries out of a flat run of a tensor that begins at ``first``."""

    def span(self, name: str, first: int, count: int) -> tuple[int, int]:
        """Find the trained entries in such a run: the number of the first, and how many."""

    def weights(self, values: Source) -> Source:
        """Return the source of the model's weights, given that of what is trained."""

    def start(self) -> Source:
        """Return the source of what is trained before the first step."""


class WholeTensors:
    """Every entry of some tensors; what is trained is the weights themselves."""

    def __init__(self, base: BaseSource, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.sizes: Mapping[str, int] = {name: math.prod(shape) for name, shape in shapes.items()}
        self._base = base

    def pick(self, _name: str, run: Tensor, _first: int) -> Tensor:
        """See :class:`Trained`."""
        return run

    def span(self, _name: str, first: int, count: int) -> tuple[int, int]:
        """See :class:`Trained`."""
        return first, count

    def weights(self, values: Source) -> Source:
        """See :class:`Trained`."""
        return _Either(self.sizes, values, self._base)

    def start(self) -> Source:
        """See :class:`Trained`."""
        return self._base


class RetainedEntries:
    """A random share of the entries of some tensors; all others stay as they are.

    What is trained is their deltas, in fp32. The model holds fp32(base + delta) rounded to its own
    dtype, as a patch will write it; the deltas take the gradients as if there were no rounding.

    Args:
        base: the base's values.
        shapes: of the tensors.
        share: the share of the entries, in (0, 1).
        seed: of the draws; a DARE merge of the same density and seed draws the same entries.
        remembers: whether all positions are kept, 8 bytes for each, in place of those of the tensor
            that was last asked for.

    Raises:
        DeriveError: no entry is drawn.
    """

    def __init__(
        self,
        base: BaseSource,
        shapes: Mapping[str, tuple[int, ...]],
        share: float,
        seed: int,
        remembers: bool,
    ) -> None:
        self.shapes = shapes
        self._base = base
        self._share = share
        self._seed = seed
        self._remembers = remembers
        self._known: dict[str, Tensor] = {}
        self.sizes: Mapping[str, int] = {name: len(self.positions(name)) for name in shapes}
        if not any(self.sizes.values()):
            entries = sum(math.prod(shape) for shape in shapes.values())
            raise DeriveError(
                f"retain is {share:g}, and none of {entries:,} entries is drawn, so nothing would "
                "be tuned; raise retain, or take another seed"
            )

    def positions(self, name: str) -> Tensor:
        """Return the flat positions of a tensor's entries, in order; int64, on the CPU."""
        known = self._known.get(name)
        if known is not None:
            return known
        found = _draw(name, math.prod(self.shapes[name]), self._share, self._seed)
        # Replaced, not changed: weights are read ahead in another thread.
        self._known = {**(self._known if self._remembers else {}), name: found}
        return found

    def pick(self, name: str, run: Tensor, first: int) -> Tensor:
        """See :class:`Trained`."""
        positions = self.positions(name)
        start, count = self._between(positions, first, run.numel())
        return run[(positions[start : start + count] - first).to(run.device)]

    def span(self, name: str, first: int, count: int) -> tuple[int, int]:
        """See :class:`Trained`."""
        return self._between(self.positions(name), first, count)

    def weights(self, values: Source) -> Source:
        """See :class:`Trained`."""
        return _WithDeltas(self, values, self._base)

    def start(self) -> Source:
        """See :class:`Trained`."""
        return _Zeros()

    @staticmethod
    def _between(positions: Tensor, first: int, count: int) -> tuple[int, int]:
        start = int(torch.searchsorted(positions, first))
        return start, int(torch.searchsorted(positions, first + count)) - start


class _Either:
    """What is trained from one source, everything else from another."""

    def __init__(self, sizes: Mapping[str, int], trained: Source, base: Source) -> None:
        self._sizes = sizes
        self._trained = trained
        self._base = base

    def read(self, name: str, first: int, out: Tensor) -> None:
        source = self._trained if name in self._sizes else self._base
        source.read(name, first, out)


class _WithDeltas:
    """The base's values, with deltas added to those that are trained."""

    def __init__(self, entries: RetainedEntries, deltas: Source, base: BaseSource) -> None:
        self._entries = entries
        self._deltas = deltas
        self._base = base

    def read(self, name: str, first: int, out: Tensor) -> None:
        self._base.read(name, first, out)
        if name not in self._entries.sizes:
            return
        start, count = self._entries.span(name, first, out.numel())
        deltas = torch.empty(count)
        self._deltas.read(name, start, deltas)
        places = self._entries.positions(name)[start : start + count] - first
        exact = out
        if out.dtype not in (torch.float32, self._base.kind(name)):
            exact = torch.empty(out.numel())
            self._base.read(name, first, exact)
        out[places] = (exact[places].float() + deltas).to(out.dtype)


class _Zeros:
    def read(self, _name: str, _first: int, out: Tensor) -> None:
        out.zero_()


def _draw(name: str, words: int, share: float, seed: int) -> Tensor:
    """Draw the positions of a tensor's retained entries; int64."""
    retention = drawn(_STREAM, name, seed, share)
    bits = np.empty(words_for(words), np.uint32)
    mark_retained(bits, words, 0, retention)
    return torch.from_numpy(np.flatnonzero(unpack(bits, words)))
