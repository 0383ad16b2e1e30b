"""Peak resident memory of diff, apply, revert and build on a synthetic checkpoint.

    python benchmarks/memory.py [--gigabytes 4] [--folder DIR]

Prints a table; exits with 1 where a peak is above 600 MB. Pages of mapped files count. The build
takes the same tuned model and the same scores for both components, which saves disk and changes
nothing about its memory: their retention masks still differ.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from launch import Measured, measure, patchc
from synthetic import GIGABYTE, Synthetic, write_case

CEILING = 600 * 10**6


def run(folder: Path, base_bytes: int) -> tuple[Synthetic, dict[str, Measured]]:
    """Measure the four commands in a folder; outputs that are no longer needed are removed."""
    case = write_case(folder, base_bytes)
    update, fix = folder / "update.patchc", folder / "fix.patchc"
    scores = ("--se-scores", case.scores, "--osm-scores", case.scores)
    tuned = ("--se", case.tuned, "--osm", case.tuned)
    found = {"build": measure(patchc("build", case.base, *tuned, *scores, "-o", fix))}
    shutil.rmtree(case.scores)
    found["diff"] = measure(patchc("diff", case.base, case.tuned, "-o", update))
    shutil.rmtree(case.tuned)
    found["apply"] = measure(patchc("apply", update, case.base, "-o", folder / "applied"))
    shutil.rmtree(case.base)
    found["revert"] = measure(patchc("revert", update, folder / "applied", "-o", folder / "back"))
    return case, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of the base")
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        case, found = run(Path(folder), int(options.gigabytes * GIGABYTE))
    cores = len(os.sched_getaffinity(0))
    print(f"base {case.base_bytes / GIGABYTE:.2f} GB bf16, {cores} threads")
    print(f"{'command':<10}{'peak, MB':>10}{'wall, s':>10}")
    for name, measured in found.items():
        print(f"{name:<10}{measured.peak_bytes / 1e6:>10.0f}{measured.seconds:>10.1f}")
    above = [name for name, measured in found.items() if measured.peak_bytes > CEILING]
    if above:
        sys.exit(f"above {CEILING / 1e6:.0f} MB: {', '.join(above)}")


if __name__ == "__main__":
    main()
