"""What a derivation takes, measured in a process of its own, is what was planned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import measured_command
import pytest
from larger_llama import write_larger_base, write_longer_data
from streaming import least_of
from tiny_checkpoints import tree

FEW = ["--directions", "se", "--se-steps", "2", "--batch-size", "4", "--score-samples", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("larger")
    write_larger_base(folder / "base")
    write_longer_data(folder / "data.jsonl")
    return folder


def derive(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Derive in a process of its own."""
    arguments = ["base", "--data", "data.jsonl", "--retain", "0.01", "--device", "cpu", *FEW]
    return subprocess.run(
        [sys.executable, measured_command.__file__, *arguments, *more],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_planner_against_measurement(folder: Path) -> None:
    least = least_of(derive(folder, "-o", "streamed", "--max-memory", "1").stderr)
    runs = {"streamed": ["--max-memory", str(least)], "whole": []}
    plans = {}
    for out, more in runs.items():
        done = derive(folder, "-o", out, *more)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        plans[out] = plan = found["plan"]
        assert 0.5 * plan["memory_bytes"] <= found["memory"] <= 1.1 * plan["memory_bytes"]
        assert found["scratch"] == pytest.approx(plan["scratch_bytes"], rel=0.01)
    assert [plan["streams"] for plan in plans.values()] == [True, False]
    assert plans["streamed"]["memory_bytes"] < 0.7 * plans["whole"]["memory_bytes"]
    assert tree(folder / "streamed") == tree(folder / "whole")
    assert {path.name for path in folder.iterdir()} == {"base", "data.jsonl", *runs}
