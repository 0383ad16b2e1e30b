"""Throughput of apply and revert beside `cp -r`, and of build, in one run.

    python benchmarks/speed.py [--folder /dev/shm] [--gigabytes 0.5 2] [--repeats 3]

Every command runs on a small and on a large checkpoint, in turn, and the best of the repeats
counts. The slope between the two sizes is the throughput; what is left at size 0 is the start-up.
The outputs are compared with what they must be before any figure is printed.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from launch import measure, patchc
from synthetic import GIGABYTE, Synthetic, write_case

COMMANDS = ("cp -r", "apply", "revert", "build")


@dataclass(frozen=True)
class Timing:
    """Seconds at one size; ``amount`` is bytes of the base, or entries with scores for build."""

    amount: int
    seconds: float


def run(folder: Path, base_bytes: int, repeats: int) -> dict[str, Timing]:
    """Time every command on one size and check what they wrote."""
    case = write_case(folder, base_bytes)
    update, fix = folder / "update.patchc", folder / "fix.patchc"
    copied, applied, back = (folder / name for name in ("copied", "applied", "back"))
    measure(patchc("diff", case.base, case.tuned, "-o", update))
    scores = ("--se-scores", case.scores, "--osm-scores", case.scores)
    tuned = ("--se", case.tuned, "--osm", case.tuned)
    commands = {
        "cp -r": ["cp", "-r", str(case.base), str(copied)],
        "apply": patchc("apply", update, case.base, "-o", applied),
        "revert": patchc("revert", update, applied, "-o", back),
        "build": patchc("build", case.base, *tuned, *scores, "-o", fix),
    }
    best = dict.fromkeys(COMMANDS, float("inf"))
    for _ in range(repeats):
        for path in (copied, applied, back):
            shutil.rmtree(path, ignore_errors=True)
        fix.unlink(missing_ok=True)
        for name, command in commands.items():
            best[name] = min(best[name], measure(command).seconds)
            if name == "cp -r":
                shutil.rmtree(copied)
    _check(case, applied, back)
    shutil.rmtree(folder)
    amounts = dict.fromkeys(COMMANDS, case.base_bytes) | {"build": case.candidate_entries}
    return {name: Timing(amounts[name], best[name]) for name in COMMANDS}


def _check(case: Synthetic, applied: Path, back: Path) -> None:
    for expected, found in ((case.tuned, applied), (case.base, back)):
        names = [path.name for path in expected.iterdir()]
        same, *_ = filecmp.cmpfiles(expected, found, names, shallow=False)
        if sorted(same) != sorted(names):
            sys.exit(f"{found} is not {expected}: no figure is worth printing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    memory = Path("/dev/shm")
    default = memory if memory.is_dir() else None
    parser.add_argument("--folder", type=Path, default=default, help="a memory-backed folder")
    parser.add_argument("--gigabytes", type=float, nargs=2, default=(0.5, 2.0), help="two sizes")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        small, large = (
            run(Path(folder) / str(size), int(size * GIGABYTE), options.repeats)
            for size in sorted(options.gigabytes)
        )
    print(f"{len(os.sched_getaffinity(0))} threads, best of {options.repeats}")
    print(f"{'command':<10}{'start-up, s':>12}{'throughput':>24}{'of cp -r':>10}")
    copy_slope = 0.0
    for name in COMMANDS:
        one, other = small[name], large[name]
        slope = (other.seconds - one.seconds) / (other.amount - one.amount)
        start_up = one.seconds - slope * one.amount
        if name == "build":
            rate, share = f"{1e-6 / slope:.0f} M parameters/s", ""
        else:
            copy_slope = copy_slope or slope
            rate, share = f"{1e-9 / slope:.2f} GB/s", f"{copy_slope / slope:.2f}"
        print(f"{name:<10}{start_up:>12.2f}{rate:>24}{share:>10}")


if __name__ == "__main__":
    main()
