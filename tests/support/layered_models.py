"""Tiny models that run layer by layer, from memory, and what their gradients are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from patchc.checkpoint import open_checkpoint
from patchc.layered.boundaries import HeldBoundaries
from patchc.layered.layered_model import LayeredModel
from patchc.layered.model_parts import load_parts
from patchc.layered.passes import Pass, Term
from patchc.layered.sources import BaseSource
from patchc.layered.weights import HeldWeights

CPU = torch.device("cpu")


def held_model(folder: Path, *, autocast: bool = False) -> LayeredModel:
    """A checkpoint in memory, in fp32."""
    with open_checkpoint(folder) as base:
        parts = load_parts(base, CPU, torch.float32)
        weights = HeldWeights.read(parts, BaseSource(base), CPU, torch.float32)
    return LayeredModel(parts, weights, CPU, autocast)


def values_of(model: LayeredModel) -> dict[str, Tensor]:
    """The weights of a model in memory, to be changed in place."""
    assert isinstance(model.weights, HeldWeights)
    return model.weights.values


def gradients_of(
    model: LayeredModel, losses: Sequence[Callable[[], Tensor]], *, keeps: bool = True
) -> dict[str, Tensor]:
    """The sums of the gradients of losses, by tensor."""
    collector = Sums(model.parts.shapes)
    Pass(model, [Term(loss) for loss in losses], collector, HeldBoundaries(), keeps).run()
    return collector.sums


class Sums:
    """Sums gradients as they come; a :class:`patchc.layered.passes.Collector`."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.wanted: Collection[str] = shapes.keys()
        self.sums = {name: torch.zeros(shape) for name, shape in shapes.items()}

    def begin(self, names: Collection[str]) -> None:
        pass

    def add(self, name: str, gradient: Tensor) -> None:
        self.sums[name] += gradient

    def add_block(self, name: str, first_row: int, gradient: Tensor) -> None:
        self.sums[name][first_row : first_row + len(gradient)] += gradient

    def add_rows(self, name: str, rows: Tensor, gradient: Tensor) -> None:
        self.sums[name][rows] += gradient

    def finish(self, names: Collection[str]) -> None:
        pass
