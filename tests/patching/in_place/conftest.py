"""Fixtures of the tests beside."""

from __future__ import annotations

import pytest
from in_place_directions import Direction
from tiny_checkpoints import PatchedModel

from patchc.patching import pending_groups


@pytest.fixture(params=["apply", "revert"])
def direction(request: pytest.FixtureRequest, patched: PatchedModel) -> Direction:
    """The two models are known to be on either side; ``source`` is the one that is changed."""
    sides = [patched.base, patched.tuned]
    source, target = sides if request.param == "apply" else sides[::-1]
    return Direction(request.param, patched.patch, source, target)


@pytest.fixture
def a_chunk_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run has as many groups as chunks."""
    monkeypatch.setattr(pending_groups, "GROUP_BYTES", 1)
