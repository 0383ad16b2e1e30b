"""What an optimiser holds of each entry, its value and its moments, in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from patchc.derivation.adamw import RUN, Fields, Kind, Run, moments, new_moments, runs_of
from patchc.layered.scratch import Scratch
from patchc.layered.sources import Source

_VALUES = "values"


class States(Protocol):
    """The values and moments of what is trained.

    Attributes:
        steps: optimiser steps that are complete.
    """

    steps: int

    def visit(self) -> Iterator[tuple[Run, Tensor, Fields]]:
        """Yield each run with its values and moments, to be changed in place before the next.

        Once all runs were visited, a step is complete.
        """

    def read(self, name: str, first: int, out: Tensor) -> None:
        """Fill ``out``, flat, with the values of what is trained of a tensor; rounds to nearest."""

    def forget_moments(self) -> None:
        """Take note that there will be no more steps."""


class HeldStates:
    """States in memory.

    Args:
        values: what is trained, fp32 and flat, by name; changed in place.
        kind: of the moments.
    """

    def __init__(self, values: Mapping[str, Tensor], kind: Kind) -> None:
        self.steps = 0
        self._values = values
        self._kind = kind
        self._moments: dict[Run, Fields] = {}

    def visit(self) -> Iterator[tuple[Run, Tensor, Fields]]:
        """See :class:`States`."""
        for run in runs_of({name: one.numel() for name, one in self._values.items()}):
            values = self._values[run.name][run.first : run.first + run.count]
            if run not in self._moments:
                self._moments[run] = new_moments(self._kind, run.count, values.device)
            yield run, values, self._moments[run]
        self.steps += 1

    def forget_moments(self) -> None:
        """See :class:`States`."""
        self._moments.clear()

    def read(self, name: str, first: int, out: Tensor) -> None:
        """See :class:`States`."""
        out.copy_(self._values[name][first : first + out.numel()])


class ScratchStates:
    """States in a scratch file, of which a step that was interrupted can be completed.

    A step moves every run by the size of the largest one: to the front in odd steps, in order, and
    back in even ones, from the last run on. A run is written where only runs lay that have moved
    already, so at every moment each run is whole, at its old place or its new one. A counter says
    how many have moved in which step. Before the first step nothing is stored: values come from
    ``start``.

    Args:
        scratch: the folder.
        sizes: how many entries of each tensor are trained.
        kind: of the moments.
        start: gives the values before the first step.
        name: of the file.
    """

    def __init__(
        self, scratch: Scratch, sizes: Mapping[str, int], kind: Kind, start: Source, name: str
    ) -> None:
        self._runs = list(runs_of(sizes))
        self._kind = kind
        self._start = start
        self._scratch = scratch
        self._name = name
        lengths = [state_bytes(kind, run.count) for run in self._runs]
        self._places = list(accumulate(lengths, initial=0))
        self._shift = max(lengths, default=0)
        self._file = scratch.file(name, self._places.pop() + self._shift)
        self._counter = scratch.file(f"{name}-counter", 16)
        self._firsts: dict[str, int] = {}
        for number, run in enumerate(self._runs):
            self._firsts.setdefault(run.name, number)
        self.steps: int = scratch.notes.get(name, 0)
        self._order: Sequence[int] = range(len(self._runs))

    def visit(self) -> Iterator[tuple[Run, Tensor, Fields]]:
        """See :class:`States`; a step that was interrupted goes on where it was."""
        step = self.steps + 1
        order = self._order if step % 2 else self._order[::-1]
        counter = torch.zeros(2, dtype=torch.int64)
        self._counter.read(0, counter)
        if counter[0] != step:
            counter = torch.tensor([step, 0])
        for number in order[int(counter[1]) :]:
            run = self._runs[number]
            held = self._read(number)
            values, fields = _cut(held, self._kind, run.count)
            yield run, values, fields
            self._file.write(self._place(number, step), held)
            counter[1] += 1
            self._counter.write(0, counter)
        self._scratch.note(**{self._name: step})
        self.steps = step

    def forget_moments(self) -> None:
        """See :class:`States`; they lie beside the values."""

    def read(self, name: str, first: int, out: Tensor) -> None:
        """See :class:`States`; must not be called within a step."""
        if not self.steps:
            self._start.read(name, first, out)
            return
        done = 0
        while done < out.numel():
            number = self._firsts[name] + (first + done) // RUN
            within = (first + done) % RUN
            count = min(self._runs[number].count - within, out.numel() - done)
            part = out[done : done + count]
            values = part if part.dtype == torch.float32 else torch.empty(count)
            self._file.read(self._place(number, self.steps) + 4 * within, values)
            if values is not part:
                part.copy_(values)
            done += count

    def _read(self, number: int) -> Tensor:
        run = self._runs[number]
        held = torch.zeros(state_bytes(self._kind, run.count), dtype=torch.uint8)
        if self.steps:
            self._file.read(self._place(number, self.steps), held)
        else:
            values, _ = _cut(held, self._kind, run.count)
            self._start.read(run.name, run.first, values)
        return held

    def _place(self, number: int, step: int) -> int:
        return self._places[number] + (0 if step % 2 else self._shift)


def state_bytes(kind: Kind, count: int) -> int:
    """Count the bytes of a run's values and moments."""
    found = moments(kind, count).values()
    return 4 * count + sum(dtype.itemsize * size for dtype, size in found)


def _cut(held: Tensor, kind: Kind, count: int) -> tuple[Tensor, Fields]:
    """Cut a run's bytes into its values and moments, those of 4 bytes first."""
    found = sorted(moments(kind, count).items(), key=lambda one: -one[1][0].itemsize)
    every = [(_VALUES, (torch.float32, count)), *found]
    fields: Fields = {}
    at = 0
    for name, (dtype, size) in every:
        end = at + size * dtype.itemsize
        fields[name] = held[at:end].view(dtype)
        at = end
    return fields.pop(_VALUES), fields
