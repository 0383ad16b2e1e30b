"""States between layers in a scratch file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from layered_models import CPU

from patchc.layered.boundaries import ScratchBoundaries
from patchc.layered.scratch import Scratch

LAYERS = 2
STATES = [torch.arange(6.0).view(1, 2, 3), torch.arange(12.0).view(2, 2, 3) + 10]


@pytest.mark.parametrize("goes_back", [True, False])
def test_each_is_in_the_file_at_once(tmp_path: Path, goes_back: bool) -> None:
    """However many losses there are, memory holds the states of one."""
    with Scratch(tmp_path, {}) as scratch:
        kept = boundaries(scratch, goes_back)
        for boundary in range(LAYERS + 1):
            for index, states in enumerate(STATES):
                kept.put(index, states + boundary)
                assert torch.equal(kept.get(index, boundary), states + boundary)
            kept.went_forward()


def test_another_run_goes_on_from_the_last_boundary(tmp_path: Path) -> None:
    with Scratch(tmp_path, {}) as scratch:
        kept = boundaries(scratch)
        for index, states in enumerate(STATES):
            kept.put(index, states)
        kept.went_forward()
        kept.put(0, STATES[0] + 1)
    with Scratch(tmp_path, {}) as scratch:
        kept = boundaries(scratch)
        assert kept.forward == 1
        for index, states in enumerate(STATES):
            assert torch.equal(kept.get(index, 0), states)


def test_before_the_first_boundary_is_complete_nothing_counts(tmp_path: Path) -> None:
    with Scratch(tmp_path, {}) as scratch:
        boundaries(scratch).put(0, STATES[1])
    with Scratch(tmp_path, {}) as scratch:
        kept = boundaries(scratch)
        for index, states in enumerate(STATES):
            kept.put(index, states)
        assert torch.equal(kept.get(0, 0), STATES[0])
        assert torch.equal(kept.get(1, 0), STATES[1])


def boundaries(scratch: Scratch, goes_back: bool = True) -> ScratchBoundaries:
    return ScratchBoundaries(scratch, torch.float32, LAYERS, CPU, "states", True, goes_back)
