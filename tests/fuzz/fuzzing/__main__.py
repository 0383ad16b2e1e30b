"""``python -m fuzzing``: all targets one after the other, or several at a time; see --help."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fuzzing.report import Folders, table

_LEAST = 5
"""Seconds for which it is worth starting a search again."""

_COVERED = re.compile(r"cov: (\d+) ft: (\d+)")
_DONE = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_PULSE = re.compile(r"^#(\d+)\s", re.MULTILINE)


def main() -> int:
    """Search, replay and count; print a table, and write it to report.json."""
    from fuzzing.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "targets", nargs="*", choices=[[], *TARGETS], metavar="TARGET", help=", ".join(TARGETS)
    )
    parser.add_argument("--seconds", type=int, default=60, help="of searching, for each target")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--out", type=Path, default=Path(".fuzz"), help="keeps inputs and findings")
    given = parser.parse_args()
    names = given.targets or [*TARGETS]
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(given.jobs) as pool:
        for row in pool.map(lambda name: _work(name, given.seconds, given.out), names):
            rows.append(row)
            print(_sentence(row), flush=True)
            (given.out / "report.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"\n{table(rows)}")
    found = sum(row["findings"] for row in rows)
    unfinished = [row["target"] for row in rows if "problem" in row]
    if found:
        print(f"\n{found} findings in {given.out / 'findings'}; each has a .txt beside it")
    return 1 if found or unfinished else 0


def _work(name: str, seconds: int, out: Path) -> dict[str, Any]:
    folders = Folders(out, name)
    row: dict[str, Any] = {"target": name}
    with tempfile.TemporaryDirectory(prefix="patchc-fuzz-", dir=_memory()) as scratch:
        row |= _search(name, seconds, folders, scratch)
        for what in ("replay", "lines"):
            done = _start([what, name, str(out)], scratch)
            try:
                row |= json.loads(done.stdout)
            except ValueError:
                row["problem"] = f"{what} ended with {done.returncode}: {done.stderr[-2000:]}"
    row["inputs"] = sum(1 for _ in folders.corpus.iterdir())
    row["findings"] = len(folders.found())
    return row


def _search(name: str, seconds: int, folders: Folders, scratch: str) -> dict[str, Any]:
    """Search until the time is over, again where libFuzzer has ended at a finding of its own."""
    row: dict[str, Any] = {"executions": 0, "edges": 0, "features": 0}
    folders.begin()
    begun = time.monotonic()
    while (left := seconds - int(time.monotonic() - begun)) >= min(_LEAST, seconds):
        before = len(folders.found())
        done = _start(["search", name, str(left), str(folders.out)], scratch)
        ran = _DONE.findall(done.stderr) or _PULSE.findall(done.stderr)
        row["executions"] += int(ran[-1]) if ran else 0
        for edges, features in _COVERED.findall(done.stderr)[-1:]:
            row |= {"edges": int(edges), "features": int(features)}
        if done.returncode:
            (folders.findings / "libfuzzer.txt").write_text(done.stderr[-20_000:])
            if len(folders.found()) == before:
                row["problem"] = f"the search ended with {done.returncode}: {done.stderr[-2000:]}"
                break
        for left_by in Path(scratch).iterdir():
            shutil.rmtree(left_by, ignore_errors=True)
    row["seconds"] = round(time.monotonic() - begun)
    row["per_second"] = round(row["executions"] / max(row["seconds"], 1))
    return row


def _start(arguments: list[str], scratch: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TMPDIR": scratch, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fuzzing.worker", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, errors="replace", check=False
    )


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _sentence(row: dict[str, Any]) -> str:
    problem = f"; {row['problem']}" if "problem" in row else ""
    return (
        f"{row['target']}: {row['executions']:,} inputs in {row['seconds']} s, "
        f"{row['edges']:,} edges, {row['findings']} findings{problem}"
    )


if __name__ == "__main__":
    sys.exit(main())
