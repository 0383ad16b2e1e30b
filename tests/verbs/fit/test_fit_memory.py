"""What a fit takes, measured in a process of its own, is within its budget."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import measured_fit
from streaming import least_of


def fit(folder: Path, out: str, max_memory: int) -> subprocess.CompletedProcess[str]:
    """Fit in a process of its own."""
    arguments = [folder, folder / out, max_memory]
    return subprocess.run(
        [sys.executable, measured_fit.__file__, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def within_the_least(folder: Path, out: str) -> tuple[int, dict[str, Any]]:
    """Fit within the least budget; what a process has before it plans differs from run to run."""
    least, done = 1, fit(folder, out, 1)
    for _ in range(4):
        assert done.returncode, "a fit within one byte"
        least = max(least, least_of(done.stderr)) + (4 << 20)
        done = fit(folder, out, least)
        if not done.returncode:
            return least, json.loads(done.stdout.splitlines()[-1])
    raise AssertionError(done.stderr)


def test_the_budget_against_measurement(tmp_path: Path) -> None:
    folder = measured_fit.write_inputs(tmp_path)
    least, streamed = within_the_least(folder, "streamed.patchc")
    done = fit(folder, "held.patchc", 16 << 30)
    held = json.loads(done.stdout.splitlines()[-1])
    assert [streamed["streams"], held["streams"]] == [True, False]
    assert 0.5 * least <= streamed["memory"] <= 1.05 * least
    assert streamed["memory"] < held["memory"] - (40 << 20)
    patches = [(folder / f"{name}.patchc").read_bytes() for name in ("streamed", "held")]
    assert patches[0] == patches[1]
