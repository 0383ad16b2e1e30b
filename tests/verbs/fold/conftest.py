"""Fixtures of the tests beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from patch_chains import NORM, STILL, UP, Chain, chain_of
from tiny_checkpoints import normal, nudge


@pytest.fixture(params=["rice"])
def chain(tmp_path: Path, request: pytest.FixtureRequest) -> Chain:
    """Three patches: over all chunks of one tensor, over one chunk of the other at a time."""
    states: list[dict[str, Any]] = [
        {
            UP: normal((90, 100), "BF16", 1),
            NORM: normal((3, 4096), "F32", 2),
            STILL: normal((7,), "F16", 3),
        }
    ]
    for i in range(3):
        state = dict(states[-1])
        state[UP] = nudge(state[UP], 0.1, i)
        state[NORM] = state[NORM].copy()
        state[NORM][i % 2] = nudge(state[NORM][i % 2], 0.02, 50 + i)
        states.append(state)
    return chain_of(tmp_path, states, request.param)
