"""All that a CUDA device has to show, in at most nine minutes: tests, kernels, memory, speed.

    make gpu [PYTHON=python3] [WHEELS=folder] [OUT=folder]
    PYTHONPATH=benchmarks python -m gpu [--wheels FOLDER] [--out FOLDER] [--parts kernels tests]

Runs the parts of :mod:`gpu.plan`, most important first, and needs no network: what this Python
lacks comes from a folder of wheels. ``results.json`` and ``results.md`` are written after each
part, and say which claims of the documents the run settles. Ends with 1 where a part failed or was
killed.

Without a CUDA device, or with ``--rehearse``: the same parts on the CPU with small shapes, the
kernels in Triton's interpreter. Its results lie in another folder, named a rehearsal throughout;
its figures say nothing about a device.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from figures import write_json

from gpu import report
from gpu.claims import CLAIMS
from gpu.plan import ROOT, Machine, Plan
from gpu.timed_parts import Deadline, Outcome, run_part
from gpu.wheels import Requirements, install

MINUTES = 9
REHEARSAL = "REHEARSAL on the CPU: no figure here is of a device."
PROBE = """
import json, torch
found = {"torch": torch.__version__, "device": "", "device_memory": 0}
if torch.cuda.is_available():
    found["device"] = torch.cuda.get_device_name()
    found["device_memory"] = torch.cuda.get_device_properties(0).total_memory
print(json.dumps(found))
"""


def probe() -> dict[str, Any]:
    """The device that torch sees, asked in a process of its own: this one never holds it."""
    nothing = {"torch": "", "device": "", "device_memory": 0}
    command = [sys.executable, "-c", PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except subprocess.TimeoutExpired:
        return nothing
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else nothing


class Results:
    """What the run found so far, written anew after each part."""

    def __init__(self, folder: Path, about: dict[str, Any], notes: list[str]) -> None:
        self.folder = folder
        self._rehearsal = not about["device"]
        self._about = about
        self._notes = notes
        self.outcomes: list[Outcome] = []

    def add(self, outcome: Outcome, left: float) -> None:
        self.outcomes.append(outcome)
        content = {
            "kind": "rehearsal" if self._rehearsal else "device",
            "note": REHEARSAL if self._rehearsal else f"Measured on {self._about['device']}.",
            "machine": self._about,
            "notes": self._notes,
            "seconds_left": round(left, 1),
            "parts": [asdict(one) for one in self.outcomes],
            "claims": [asdict(claim) | {"measured": self._measured(claim)} for claim in CLAIMS],
        }
        write_json(self.folder / "results.json", content)
        (self.folder / "results.md").write_text(self.markdown(), encoding="utf-8")

    def markdown(self) -> str:
        mark = " (rehearsal on the CPU)" if self._rehearsal else ""
        title = REHEARSAL if self._rehearsal else f"Measured on {self._about['device']}."
        about = ", ".join(f"{report.heading(name)} {value}" for name, value in self._about.items())
        tables = [report.figures(one, mark) for one in self.outcomes if one.tables]
        parts = [title, about + ".", *self._notes, report.outcomes(self.outcomes), *tables]
        return "\n\n".join(part.rstrip("\n") for part in [*parts, self._claims()]) + "\n"

    def _claims(self) -> str:
        said = "A run on a device would settle" if self._rehearsal else "This run settles"
        rows = [
            [claim.document, report.cell("", claim.words), claim.part, self._measured(claim)]
            for claim in CLAIMS
        ]
        return f"{said}:\n\n" + report.table(["in", "says", "part", "measured"], rows)

    def _measured(self, claim: Any) -> str:
        found = claim.measured(self.outcomes)
        if self._rehearsal:
            return "rehearsed" if found else "not rehearsed"
        return found or "not measured"


def prepare(wheels: Path | None, work: Path) -> tuple[list[str], frozenset[str], list[str]]:
    """Find what is missing, install it where there are wheels, and say what is left.

    Returns:
        Folders for the PYTHONPATH, the names of absent distributions, and what to tell.
    """
    wanted = Requirements().all()
    unmet = [one for one in wanted if not one.met()]
    path = install(unmet, wheels, work / "installed") if wheels and unmet else []
    unmet = [one for one in unmet if not one.met()]
    absent = [one for one in unmet if one.held() is None]
    notes = [
        f"{one.name} {one.held()} is installed, {one} is asked for." for one in unmet if one.held()
    ]
    if absent:
        from_where = "there are no wheels of them" if wheels else "WHEELS=folder installs them"
        notes.append(f"Missing: {', '.join(map(str, absent))}; {from_where}.")
    return path, frozenset(one.name for one in absent), notes


def run(options: argparse.Namespace, work: Path) -> int:
    deadline = Deadline(60 * options.minutes)
    path, absent, notes = prepare(options.wheels, work)
    found = probe()
    if options.rehearse:
        found |= {"device": "", "device_memory": 0}
    machine = Machine.find(found["device"], found["device_memory"], work)
    about = found | {
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "free_host_memory": machine.host_memory,
        "free_disk": machine.disk_room,
    }
    default = "benchmarks/gpu" if machine.device else ".cache/gpu-rehearsal"
    results = Results(options.out or ROOT / default, about, notes)
    print(f"On {machine.device}." if machine.device else REHEARSAL, *notes, sep="\n", flush=True)
    for part in Plan(machine, work, path).parts():
        if options.parts and part.name not in options.parts:
            continue
        print(f"{deadline.left():4.0f} s left: {part.name}, at most {part.limit:.0f} s", flush=True)
        outcome = run_part(part, deadline, absent)
        results.add(outcome, deadline.left())
        print(f"            {outcome.state} after {outcome.seconds:.0f} s {outcome.reason}")
        if outcome.state in ("failed", "killed"):
            print(outcome.tail)
    print(results.markdown())
    print(f"Written to {results.folder}/results.json and results.md.")
    return int(any(one.state in ("failed", "killed") for one in results.outcomes))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, help="a folder of wheels for what is missing")
    parser.add_argument("--out", type=Path, help="a folder for results.json and results.md")
    parser.add_argument("--parts", nargs="*", help="only these")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, whatever is there")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    # A part is in a session of its own: stopped, this process has to end it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="patchc-gpu-") as work:
        return run(parser.parse_args(), Path(work))


if __name__ == "__main__":
    sys.exit(main())
