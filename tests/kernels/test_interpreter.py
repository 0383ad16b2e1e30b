"""The tests in tensors/ once more, in Triton's interpreter.

In a process of its own, because triton reads the variable when it is imported.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path


def test_kernels_pass_in_the_interpreter() -> None:
    folder = Path(__file__).parent / "tensors"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not gpu", "-p", "no:cacheprovider"]
    finished = subprocess.run(
        [*command, str(folder)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-6000:]
    outcome = finished.stdout.splitlines()[-1]
    assert re.match(r"\d+ passed", outcome), outcome
    assert "skipped" not in outcome, outcome
