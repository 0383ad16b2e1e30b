"""A fixed number of mutated inputs from fixed seeds: what `make test` runs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fuzzing.mutation.draws import Draws
from fuzzing.target import Target, attempt, place_of

_MOST_KEPT = 40


@dataclass(frozen=True)
class Finding:
    """An input with which a target did what it must not.

    Attributes:
        place: what tells findings apart.
        error: what was raised.
        data: the input.
    """

    place: str
    error: Exception
    data: bytes


def inputs(target: Target, seeds: list[bytes], count: int, part: int = 0) -> Iterator[bytes]:
    """Mutated inputs, the same in each run and others in each part; some are mutated again."""
    kept: list[bytes] = []
    for number in range(count):
        draws = Draws(f"{target.name} {part} {number}")
        pool = kept if kept and draws.chance(0.3) else seeds
        data = draws.choice(pool)
        data = target.mutated(data, draws)
        if draws.chance(0.5):
            if len(kept) == _MOST_KEPT:
                del kept[draws.place(kept)]
            kept.append(data)
        yield data


def run(
    target: Target, seeds: list[bytes], count: int, part: int = 0, measured: bool = False
) -> list[Finding]:
    """Let a target read its inputs; the first finding of each place.

    Where it is ``measured``, an input that takes too much memory is a finding as well.
    """
    found: dict[str, Finding] = {}
    with traced(measured):
        for data in inputs(target, seeds, count, part):
            error = attempt(target, data) or memory_fault(target)
            if error:
                place = place_of(error)
                found.setdefault(place, Finding(place, error, data))
    return [*found.values()]


@contextmanager
def traced(measured: bool) -> Iterator[None]:
    """Let Python and NumPy count the memory that they take, if it is to be measured."""
    if not measured:
        yield
        return
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def memory_fault(target: Target) -> Exception | None:
    """What to say of the memory taken since the last call, if that is too much."""
    if not tracemalloc.is_tracing():
        return None
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    if peak - min(held, peak) <= target.memory:
        return None
    return MemoryError(f"{peak - held:,} bytes at once")
