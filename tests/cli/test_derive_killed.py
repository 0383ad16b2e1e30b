"""``patchc derive`` is killed in any phase; the same command goes on, and writes the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import killed_commands
import torch
from derive_commands import derive, write_inputs

POINTS = 20


def test_runs_that_are_killed_come_to_the_same_end(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    code, _, errors = derive(tmp_path, tmp_path / "wanted")
    assert code == 0, errors
    done = subprocess.run(
        [sys.executable, killed_commands.__file__, tmp_path, "7", str(POINTS)],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    killed = json.loads(done.stdout)
    assert len(killed) >= POINTS
    assert set(killed) >= {f"{d} {phase}" for d in ("se", "osm") for phase in ("tune", "score")}
    assert not list((tmp_path / "scratch").iterdir())
