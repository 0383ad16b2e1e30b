"""A share of each matrix; ``make torture`` runs them in full, for minutes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


@pytest.mark.parametrize(
    ("matrix", "points"),
    [
        ("kills", 5),
        ("power_loss", 20),
        ("faults", 7),
        ("system_faults", 3),
        ("concurrency", 2),
        ("meddling", 1),
    ],
)
def test_nothing_is_lost_mixed_or_left(tmp_path: Path, matrix: str, points: int) -> None:
    """In a process of its own, which forks while it has one thread."""
    folders = ["--folder", str(tmp_path), "--keep", str(tmp_path / "kept")]
    ended = subprocess.run(
        [sys.executable, str(RUN), matrix, "--points", str(points), *folders],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{matrix} (seed 0)" in ended.stdout


def test_an_unknown_matrix_is_refused() -> None:
    ended = subprocess.run(
        [sys.executable, str(RUN), "floods"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "no such matrix: floods" in ended.stderr
