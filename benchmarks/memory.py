"""Peak resident memory of diff, apply, revert, in place and build on a synthetic checkpoint.

    python benchmarks/memory.py [--gigabytes 4] [--folder DIR]

Prints a table; exits with 1 where a peak is above the command's budget, 300 MB and for a build 500.
A model of which every word changes comes after it, where --max-memory leaves fewer threads than
were asked for. Pages of mapped files count. The build takes the same tuned model and the same
scores for both components, which saves disk and changes nothing about its memory: their retention
masks still differ.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from launch import Measured, measure, patchc
from synthetic import GIGABYTE, Synthetic, write_case

CEILINGS = {"build": 500 * 10**6}
CEILING = 300 * 10**6
TIGHT = 240 * 10**6
DENSE_WORDS = 1 << 25


def run(folder: Path, base_bytes: int) -> tuple[Synthetic, dict[str, Measured]]:
    """Measure the commands in a folder; outputs that are no longer needed are removed."""
    case = write_case(folder, base_bytes)
    update, fix = folder / "update.patchc", folder / "fix.patchc"
    scores = ("--se-scores", case.scores, "--osm-scores", case.scores)
    tuned = ("--se", case.tuned, "--osm", case.tuned)
    found = {"build": measure(patchc("build", case.base, *tuned, *scores, "-o", fix))}
    shutil.rmtree(case.scores)
    found["diff"] = measure(patchc("diff", case.base, case.tuned, "-o", update))
    shutil.rmtree(case.tuned)
    found["apply in place"] = measure(patchc("apply", update, case.base, "--in-place"))
    found["revert in place"] = measure(patchc("revert", update, case.base, "--in-place"))
    found["apply"] = measure(patchc("apply", update, case.base, "-o", folder / "applied"))
    shutil.rmtree(case.base)
    found["revert"] = measure(patchc("revert", update, folder / "applied", "-o", folder / "back"))
    return case, found


def run_dense(folder: Path, words: int) -> dict[str, Measured]:
    """Every word of a bf16 model changes, and --max-memory allows less than eight threads need."""
    rng = np.random.default_rng(0)
    base = rng.integers(0x3C00, 0x3D00, words, np.uint16)
    header = {"w": {"dtype": "BF16", "shape": [words], "data_offsets": [0, 2 * words]}}
    text = json.dumps(header).encode()
    for name, held in (("base", base), ("tuned", base ^ rng.integers(1, 256, words, np.uint16))):
        start = len(text).to_bytes(8, "little") + text
        (folder / f"{name}.safetensors").write_bytes(start + held.tobytes())
    models = folder / "base.safetensors", folder / "tuned.safetensors"
    update, tight = folder / "dense.patchc", ("--threads", "8", "--max-memory", str(TIGHT))
    return {
        "dense diff": measure(patchc("diff", *models, "-o", update, *tight)),
        "dense apply": measure(patchc("apply", update, models[0], "--in-place", *tight)),
        "dense verify": measure(patchc("verify", update, models[0], *tight)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of the base")
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        case, found = run(Path(folder), int(options.gigabytes * GIGABYTE))
        dense = run_dense(Path(folder), DENSE_WORDS)
    cores = len(os.sched_getaffinity(0))
    print(f"base {case.base_bytes / GIGABYTE:.2f} GB bf16, {cores} threads")
    print(f"{'command':<18}{'peak, MB':>10}{'allowed, MB':>14}{'wall, s':>10}")
    above = []
    for name, measured in (found | dense).items():
        allowed = 1.1 * TIGHT if name in dense else CEILINGS.get(name, CEILING)
        peak = f"{measured.peak_bytes / 1e6:>10.0f}{allowed / 1e6:>14.0f}"
        print(f"{name:<18}{peak}{measured.seconds:>10.1f}")
        if measured.peak_bytes > allowed:
            above.append(name)
    if above:
        sys.exit(f"above what is allowed: {', '.join(above)}")


if __name__ == "__main__":
    main()
