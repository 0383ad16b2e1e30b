"""Kills ``patchc derive`` again and again, in each phase of each direction, until it is through.

Usage: python killed_commands.py FOLDER SEED POINTS. The folder holds the base, the data, and "out"
as it must become; "scratch" is used. Prints the phases in which a run was killed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from derivations import digests_of
from derive_commands import derive, scratch_of
from streaming import streaming

PHASES = [(direction, phase) for direction in ("se", "osm") for phase in ("tune", "score", "write")]
_LONGEST_SECONDS = 0.03


def reached(notes: Mapping[str, Any], direction: str, phase: str) -> bool:
    """Whether a run has come to a phase, by what it has noted."""
    if f"report-{direction}" in notes:
        return True
    if phase == "score":
        return f"{direction}-tuned-scoring" in notes
    return phase == "tune" and f"{direction}-course" in notes


def notes_in(scratch: Path) -> dict[str, Any]:
    try:
        notes: dict[str, Any] = json.loads((scratch / "notes.json").read_bytes())["notes"]
    except (OSError, ValueError):
        return {}
    return notes


def run_until(folder: Path, out: Path, phase: tuple[str, str] | None, wait: float) -> bool:
    """Run the command in a child, and kill it in a phase; whether it came to its end."""
    child = os.fork()
    if not child:
        with streaming():
            code, _, errors = derive(folder, out, "--scratch", folder / "scratch")
        os.write(2, errors.encode())
        os._exit(code)
    scratches = scratch_of(folder / "scratch")
    while phase:
        scratches = scratches or scratch_of(folder / "scratch")
        if scratches and reached(notes_in(scratches[0]), *phase):
            time.sleep(wait)
            os.kill(child, signal.SIGKILL)
            break
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(0.0005)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.waitstatus_to_exitcode(status) == 0, phase
    return True


def main() -> None:
    folder, seed, points = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    moments = random.Random(seed)
    expected = digests_of(folder / "wanted")
    killed: list[str] = []
    ended = False
    # The last round is one that no kill ended: within the removal of the scratch folder, one may
    # leave the folder, empty.
    while len(killed) < points or not ended:
        out = folder / "out"
        for phase in [*PHASES, None]:
            wait = moments.uniform(0, _LONGEST_SECONDS)
            ended = run_until(folder, out, phase, wait)
            if ended:
                break
            killed.append(" ".join(phase or ()))
            if (out / "osm").exists() and not any(map(notes_in, scratch_of(folder / "scratch"))):
                break  # it was through before it was killed
        assert digests_of(out) == expected
        assert not any(map(notes_in, scratch_of(folder / "scratch")))
        shutil.rmtree(out)
    print(json.dumps(killed))


if __name__ == "__main__":
    main()
