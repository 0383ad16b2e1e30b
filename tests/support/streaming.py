"""Derivations that stream although the model would fit, and budgets that derivations name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from patchc.derivation.adamw import Kind
from patchc.derivation.memory_plan import Need, Work
from patchc.derivation.ways import ways


@contextmanager
def streaming() -> Iterator[None]:
    """The planner knows no other way than to stream."""

    def streamed(work: Work, optimizers: Sequence[Kind]) -> Iterator[Need]:
        return (way for way in ways(work, optimizers) if way.layout.streams)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("patchc.derivation.planning.ways", streamed)
        yield


def least_of(message: str) -> int:
    """The memory that a refusal says to suffice."""
    found = re.search(r"at least ([\d,]+) bytes of memory", message)
    assert found, message
    return int(found[1].replace(",", ""))
