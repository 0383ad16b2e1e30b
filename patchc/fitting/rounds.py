"""Evaluates many batches while a model that is read layer by layer is read few times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from patchc.derivation.load import Load
from patchc.layered.boundaries import HeldBoundaries
from patchc.layered.layered_model import LayeredModel
from patchc.layered.passes import evaluate

T = TypeVar("T")

ROUND_BYTES = 64 << 20
"""States of the batches that pass the layers together; a single batch may have more."""


@dataclass(frozen=True)
class Job(Generic[T]):
    """A batch to evaluate.

    Attributes:
        compute: calls the model exactly once, and the same way each time.
        load: what passes the model then.
    """

    compute: Callable[[], T]
    load: Load


def evaluate_jobs(model: LayeredModel, jobs: Sequence[Job[T]]) -> list[T]:
    """Evaluate jobs without gradients, as many together as their states' memory allows."""
    return [
        found
        for group in _rounds(model, jobs)
        for found in evaluate(model, [job.compute for job in group], HeldBoundaries())
    ]


def _rounds(model: LayeredModel, jobs: Sequence[Job[T]]) -> Iterator[list[Job[T]]]:
    group: list[Job[T]] = []
    held = 0
    for job in jobs:
        size = job.load.tokens * model.parts.hidden * model.weights.dtype.itemsize
        if group and held + size > ROUND_BYTES:
            yield group
            group, held = [], 0
        group.append(job)
        held += size
    if group:
        yield group
