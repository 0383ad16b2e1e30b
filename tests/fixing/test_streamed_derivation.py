"""A fix whose derivation has scratch files goes on with them, and removes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from derive_commands import scratch_of
from fix_runs import OPTIONS, fix
from streaming import streaming

from patchc.progress import ProgressEvent


class StopError(Exception):
    """What a run is interrupted by."""


def stop(event: ProgressEvent) -> None:
    if (event.stage, event.done) == ("tune margin", 4):
        raise StopError


def test_it_goes_on_from_its_last_step(folder: Path, tmp_path: Path) -> None:
    out, events = tmp_path / "out", list[ProgressEvent]()
    with streaming():
        with pytest.raises(StopError):
            fix(folder, out, progress=stop)
        (scratch,) = scratch_of(out / "work")
        assert scratch.name.startswith("derived.")
        fix(folder, out, progress=events.append)
    steps = [event.done for event in events if event.stage == "tune margin"]
    assert 3 < steps[0] <= steps[-1] == OPTIONS.derive.margin.steps
    assert not scratch_of(out / "work")
    assert (out / "fix.patchc").read_bytes() == (folder / "fixed/fix.patchc").read_bytes()
