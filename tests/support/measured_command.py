"""Runs ``patchc derive`` and prints, as JSON, its plan and what it took.

Usage: python measured_command.py ARGUMENTS...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from command_line import run

from patchc.layered.scratch import ScratchFile


def main() -> None:
    largest = 0
    make = ScratchFile.__init__

    def makes(self: ScratchFile, path: Path, size: int) -> None:
        nonlocal largest
        make(self, path, size)
        held = sum(file.stat().st_blocks * 512 for file in path.parent.iterdir())
        largest = max(largest, held)

    ScratchFile.__init__ = makes  # type: ignore[method-assign]
    code, report, errors = run("derive", *sys.argv[1:], "--json")
    if code:
        sys.exit(errors)
    # Not ru_maxrss: it counts the memory of the process that has started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    memory = int(status["VmHWM"].split()[0]) << 10
    print(json.dumps({"plan": json.loads(report)["plan"], "memory": memory, "scratch": largest}))


if __name__ == "__main__":
    main()
