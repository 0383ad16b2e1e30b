"""The gradients of a step, one tensor after another, in memory or in a scratch file."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from patchc.derivation.adamw import Run, runs_of
from patchc.derivation.trained import Trained
from patchc.layered.output_head import block_rows
from patchc.layered.scratch import Scratch, ScratchFile


class GradientStore(Protocol):
    """Flat fp32 gradients of what is trained, by tensor."""

    def read(self, name: str, first: int, count: int) -> Tensor:
        """Return a run of a tensor's gradient; may be a view."""

    def write(self, name: str, first: int, gradient: Tensor) -> None:
        """Replace a run of a tensor's gradient."""


class HeldGradients:
    """Gradients in memory, on a device."""

    def __init__(self, sizes: Mapping[str, int], device: torch.device) -> None:
        self._held: dict[str, Tensor] = {}
        self._sizes = sizes
        self._device = device

    def read(self, name: str, first: int, count: int) -> Tensor:
        """See :class:`GradientStore`."""
        return self._held[name][first : first + count]

    def write(self, name: str, first: int, gradient: Tensor) -> None:
        """See :class:`GradientStore`; a whole tensor's gradient is kept without a copy."""
        if first == 0 and gradient.numel() == self._sizes[name]:
            # Of what no loss depends on there is a zero gradient on the CPU.
            self._held[name] = gradient.to(self._device)
            return
        if name not in self._held:
            self._held[name] = torch.empty(self._sizes[name], device=self._device)
        self._held[name][first : first + gradient.numel()] = gradient


class ScratchGradients:
    """Gradients in a scratch file, which is made when it is needed."""

    def __init__(self, scratch: Scratch, sizes: Mapping[str, int], name: str) -> None:
        self._places: dict[str, int] = {}
        total = 0
        for tensor, size in sizes.items():
            self._places[tensor] = total
            total += 4 * size
        self._scratch = scratch
        self._name = name
        self._bytes = total

    @cached_property
    def _file(self) -> ScratchFile:
        return self._scratch.file(self._name, self._bytes)

    def read(self, name: str, first: int, count: int) -> Tensor:
        """See :class:`GradientStore`."""
        gradient = torch.empty(count)
        self._file.read(self._places[name] + 4 * first, gradient)
        return gradient

    def write(self, name: str, first: int, gradient: Tensor) -> None:
        """See :class:`GradientStore`."""
        self._file.write(self._places[name] + 4 * first, gradient.cpu().contiguous())


class GradientCollector:
    """Sums the gradients of several losses in fp32, and keeps the norm of every run.

    Implements :class:`patchc.layered.passes.Collector`.

    Args:
        store: where complete gradients go.
        trained: the entries whose gradients are taken.
    """

    def __init__(self, store: GradientStore, trained: Trained) -> None:
        self.wanted: Collection[str] = trained.sizes.keys()
        self._store = store
        self._trained = trained
        self._totals: dict[str, Tensor] = {}
        self._blocks: dict[tuple[str, int], Tensor] = {}
        self._written: set[tuple[str, int]] = set()
        self._rows: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._norms: dict[Run, Tensor] = {}

    def begin(self, names: Collection[str]) -> None:
        """See :class:`Collector`."""
        for name in names:
            self._totals.pop(name, None)
            self._rows.pop(name, None)
            self._written = {place for place in self._written if place[0] != name}

    def add(self, name: str, gradient: Tensor) -> None:
        """See :class:`Collector`."""
        own = self._trained.pick(name, gradient.view(-1), 0).float()
        self._totals[name] = self._totals[name] + own if name in self._totals else own

    def add_block(self, name: str, first_row: int, gradient: Tensor) -> None:
        """See :class:`Collector`."""
        first = first_row * gradient.shape[1]
        total = self._trained.pick(name, gradient.reshape(-1), first).float()
        start, count = self._trained.span(name, first, gradient.numel())
        if (name, first_row) in self._written:
            total = self._store.read(name, start, count).to(total.device) + total
        self._written.add((name, first_row))
        self._store.write(name, start, total)

    def add_rows(self, name: str, rows: Tensor, gradient: Tensor) -> None:
        """See :class:`Collector`."""
        self._rows.setdefault(name, []).append((rows, gradient))

    def finish(self, names: Collection[str]) -> None:
        """See :class:`Collector`."""
        for name in names:
            total = self._totals.pop(name, None)
            if total is None:
                self._write_rows(name, self._rows.pop(name, []))
            else:
                self._store.write(name, 0, total)
            for run in runs_of({name: self._trained.sizes[name]}):
                if total is None:
                    gradient = self._store.read(name, run.first, run.count)
                else:
                    gradient = total[run.first : run.first + run.count]
                self._norms[run] = torch.linalg.vector_norm(gradient).cpu()

    def norm(self) -> Tensor:
        """Compute the norm of all gradients, as the norm of the runs' norms; fp32, on the CPU."""
        norms = [self._norms[run] for run in runs_of(self._trained.sizes)]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        return norm

    def _write_rows(self, name: str, contributions: list[tuple[Tensor, Tensor]]) -> None:
        """Add the gradients of single rows to a tensor, block by block; all others are zero."""
        shape = self._trained.shapes[name]
        rows, columns = shape[0], math.prod(shape[1:])
        step = block_rows(columns)
        for first_row in range(0, rows, step):
            last_row = min(first_row + step, rows)
            first, size = first_row * columns, (last_row - first_row) * columns
            start, count = self._trained.span(name, first, size)
            written = (name, first_row) in self._written
            if written and not contributions:
                continue
            total = self._store.read(name, start, count) if written else torch.zeros(count)
            for numbers, gradient in contributions:
                inside = (numbers >= first_row) & (numbers < last_row)
                own, places = gradient[inside].float(), numbers[inside] - first_row
                total = total.to(own.device)
                if count == size:
                    total.view(-1, columns)[places] += own
                    continue
                dense = torch.zeros((last_row - first_row, columns), device=own.device)
                dense[places] = own
                total = total + self._trained.pick(name, dense.view(-1), first)
            self._store.write(name, start, total)
