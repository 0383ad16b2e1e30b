"""Commands under torchrun, with something that befalls a rank of them."""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
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
    arguments = ["--nproc-per-node", str(ranks), "--rdzv-backend", "c10d"]
    arguments += ["--rdzv-endpoint", "localhost:0", *start, *map(str, command)]
    with tempfile.TemporaryDirectory() as folder:
        out, stderr = Path(folder, "out"), Path(folder, "stderr")
        request = {
            "arguments": arguments,
            "folder": str(cwd),
            "environment": dict(environment),
            "out": str(out),
            "stderr": str(stderr),
        }
        code = _ask_torchrun(json.dumps(request), timeout=300)
        return _ended(code, out.read_text(), stderr.read_text())


def _ended(code: int, out: str, stderr: str) -> Ended:
    said = [line for line in stderr.splitlines() if line.startswith("patchc: ")]
    return Ended(code, out, stderr, said)


@cache
def _torchrun() -> subprocess.Popen[str]:
    """The process that launches; it ends when its input is closed."""
    command = [sys.executable, str(Path(__file__).with_name("torchrun_server.py"))]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)
    return server


def _ask_torchrun(request: str, timeout: float) -> int:
    server = _torchrun()
    assert server.stdin
    assert server.stdout
    server.stdin.write(request + "\n")
    server.stdin.flush()
    ready, _, _ = select.select([server.stdout], [], [], timeout)
    if not ready:
        server.kill()
        _torchrun.cache_clear()
        raise TimeoutError(f"torchrun has not ended within {timeout:.0f} s")
    return int(server.stdout.readline())
