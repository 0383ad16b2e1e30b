"""Fixtures of the tests beside."""

from __future__ import annotations

import pytest
from directions import Direction
from tiny_checkpoints import (
    PatchedModel,
)


@pytest.fixture(params=["apply", "revert"])
def direction(request: pytest.FixtureRequest, patched: PatchedModel) -> Direction:
    sides = [
        (patched.base, patched.base_tensors),
        (patched.tuned, patched.tuned_tensors),
    ]
    (source, before), (target, after) = sides if request.param == "apply" else sides[::-1]
    return Direction(request.param, patched.patch, source, target, before, after)
