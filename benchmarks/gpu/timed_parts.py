"""A part of the run: a process of its own under its own limit, ended with all that it started."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

TAIL = 4000
"""Characters kept of what a part printed."""
State = Literal["done", "failed", "killed", "not run"]
Tables = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Part:
    """What a part runs; it starts only where ``least`` seconds are left, and gets ``limit``.

    It writes its figures to ``figures`` as it goes, and all that is in ``scratch`` is removed
    when it ends. ``script`` is the file that the command runs.
    """

    name: str
    command: tuple[str, ...]
    script: Path
    limit: float
    least: float
    figures: Path
    scratch: Path
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of a part; ``tables`` are the figures that it wrote before it ended."""

    name: str
    state: State
    reason: str = ""
    seconds: float = 0.0
    tables: Tables = field(default_factory=dict)
    tail: str = ""


class Deadline:
    """When the whole run has to be over."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())


def run_part(part: Part, deadline: Deadline, absent: frozenset[str]) -> Outcome:
    """Run a part, or say why not.

    Args:
        part: What to run.
        deadline: Of the whole run; the part ends by then, whatever its own limit.
        absent: Names of the distributions that this Python does not have.
    """
    missing = [name for name in part.needs if name in absent]
    left = deadline.left()
    if not part.script.exists():
        return Outcome(part.name, "not run", f"{part.script.name} does not exist")
    if missing:
        return Outcome(part.name, "not run", f"needs {', '.join(missing)}")
    if left < part.least:
        return Outcome(part.name, "not run", f"{left:.0f} s left, needs {part.least:.0f}")
    part.scratch.mkdir(parents=True)
    part.figures.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _run(part, min(part.limit, left))
    finally:
        shutil.rmtree(part.scratch, ignore_errors=True)


def _run(part: Part, limit: float) -> Outcome:
    log = part.figures.with_suffix(".log")
    environment = os.environ | {"TMPDIR": str(part.scratch)} | part.environment
    start = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            part.command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
            state: State = "failed" if code else "done"
            reason = f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            state, reason = "killed", f"ran over its limit of {limit:.0f} s"
        finally:
            _end(process)
    seconds = time.monotonic() - start
    tail = log.read_text(encoding="utf-8", errors="replace")[-TAIL:]
    return Outcome(part.name, state, reason, seconds, _tables(part.figures), tail)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the part and everything that it left running in its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tables(figures: Path) -> Tables:
    if not figures.exists():
        return {}
    tables: Tables = json.loads(figures.read_text(encoding="utf-8"))["tables"]
    return tables
