"""Commands under torchrun, with something that befalls a rank of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

AS_RANK = """
import os, runpy, sys

if os.environ["RANK"] == os.environ.get("BEFALLS"):
    exec(os.environ["WHAT"])
sys.argv = ["patchc", *sys.argv[1:]]
runpy.run_module("patchc", run_name="__main__", alter_sys=True)
"""
"""The command, after code that changes something in one rank."""


@dataclass(frozen=True)
class Ended:
    """What is left of a run: torchrun's exit code, and what the ranks and torchrun said."""

    code: int
    out: str
    stderr: str
    errors: list[str]


def run(
    ranks: int,
    *command: object,
    cwd: Path,
    befalls: int | None = None,
    what: str = "",
    patience: float = 60,
) -> Ended:
    """Run a command under torchrun; ``what`` is code that runs in rank ``befalls`` before it."""
    environment: Mapping[str, str] = os.environ | {
        "OMP_NUM_THREADS": "1",
        "BEFALLS": str(befalls),
        "WHAT": what,
        "PATCHC_RANK_TIMEOUT": str(patience),
    }
    start = ["-m", "patchc"]
    if befalls is not None:
        script = cwd / "as_rank.py"
        script.write_text(AS_RANK)
        start = [str(script)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    ended = subprocess.run(
        [*launcher, *start, *map(str, command)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = [line for line in ended.stderr.splitlines() if line.startswith("patchc: ")]
    return Ended(ended.returncode, ended.stdout, ended.stderr, said)
