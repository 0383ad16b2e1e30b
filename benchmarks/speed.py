"""Throughput of apply and revert, to a copy and in place, beside `cp -r`, and of build, in one run.

    python benchmarks/speed.py [--folder /dev/shm] [--gigabytes 0.5 2] [--repeats 3]

Every command runs on a small and on a large checkpoint, in turn, and the best of the repeats
counts. The slope between the two sizes is the throughput; what is left at size 0 is the start-up.
CPU time, of all threads, is given beside it: it suffers less when the machine has other work.
The outputs are compared with what they must be before any figure is printed. The start-up is also
measured on its own, as the time of an apply to a model of a few words.
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

from launch import Measured, measure, patchc
from synthetic import GIGABYTE, write_case

IN_PLACE = ("revert in place", "apply in place")
COMMANDS = ("cp -r", "apply", "revert", *IN_PLACE, "build")


@dataclass(frozen=True)
class Timing:
    """Best times at one size; ``amount`` is bytes of the base, or scored entries for build."""

    amount: int
    seconds: float = float("inf")
    cpu_seconds: float = float("inf")

    def better(self, measured: Measured) -> Timing:
        """The better of both times, each on its own."""
        return Timing(
            self.amount,
            min(self.seconds, measured.seconds),
            min(self.cpu_seconds, measured.cpu_seconds),
        )


def run(folder: Path, base_bytes: int, repeats: int) -> dict[str, Timing]:
    """Time every command on one size and check what they wrote.

    An output is removed just before the next one is written, so that all of them write to memory
    in use a moment ago: on a virtual machine the first touch of a fresh page can take many times
    the copy itself.
    """
    case = write_case(folder, base_bytes)
    update, applied, out = folder / "update.patchc", folder / "applied", folder / "out"
    measure(patchc("diff", case.base, case.tuned, "-o", update))
    measure(patchc("apply", update, case.base, "-o", applied))
    scores = ("--se-scores", case.scores, "--osm-scores", case.scores)
    tuned = ("--se", case.tuned, "--osm", case.tuned)
    commands = {
        "cp -r": (["cp", "-r", str(case.base), str(out)], case.base),
        "apply": (patchc("apply", update, case.base, "-o", out), case.tuned),
        "revert": (patchc("revert", update, applied, "-o", out), case.base),
    }
    best = dict.fromkeys(COMMANDS, Timing(case.base_bytes))
    best["build"] = Timing(case.candidate_entries)
    for turn in range(repeats + 1):  # turn 0 warms up
        for name, (command, expected) in commands.items():
            shutil.rmtree(out, ignore_errors=True)
            measured = measure(command)
            if turn:
                best[name] = best[name].better(measured)
            _check(expected, out)
        for name, expected in zip(IN_PLACE, (case.base, case.tuned), strict=True):
            measured = measure(patchc(name.split()[0], update, applied, "--in-place"))
            if turn:
                best[name] = best[name].better(measured)
            _check(expected, applied)
    shutil.rmtree(out)
    for _ in range(repeats):
        build = patchc("build", case.base, *tuned, *scores, "-o", out)
        best["build"] = best["build"].better(measure(build))
        out.unlink()
    shutil.rmtree(folder)
    return best


def start_up(folder: Path, repeats: int) -> Timing:
    """The best time of an apply to one tensor of 64 words."""
    header = b'{"w": {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]}}'
    folder.mkdir()
    base, tuned = folder / "base.safetensors", folder / "tuned.safetensors"
    for path, content in ((base, bytes(64)), (tuned, bytes(range(64)))):
        path.write_bytes(len(header).to_bytes(8, "little") + header + content)
    update, out = folder / "update.patchc", folder / "out.safetensors"
    measure(patchc("diff", base, tuned, "-o", update))
    best = Timing(0)
    for turn in range(repeats + 1):
        measured = measure(patchc("apply", update, base, "-o", out))
        out.unlink()
        if turn:
            best = best.better(measured)
    return best


def _check(expected: Path, found: Path) -> None:
    names = [path.name for path in expected.iterdir()]
    same, *_ = filecmp.cmpfiles(expected, found, names, shallow=False)
    if sorted(same) != sorted(names):
        sys.exit(f"{found} is not {expected}: no figure is worth printing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    memory = Path("/dev/shm")
    default = memory if memory.is_dir() else None
    parser.add_argument("--folder", type=Path, default=default, help="a memory-backed folder")
    parser.add_argument("--gigabytes", type=float, nargs=2, default=(0.5, 2.0), help="sizes")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        small, large = (
            run(Path(folder) / str(size), int(size * GIGABYTE), options.repeats)
            for size in sorted(options.gigabytes)
        )
        start = start_up(Path(folder) / "tiny", max(options.repeats, 5))
    print(f"{len(os.sched_getaffinity(0))} threads, best of {options.repeats}")
    print(f"start-up: {start.seconds:.2f} s (CPU {start.cpu_seconds:.2f} s), apply to 64 words")
    print(
        f"{'command':<16}{'small, s':>10}{'large, s':>10}{'at size 0, s':>14}"
        f"{'throughput':>22}{'of cp -r':>10}{'CPU':>22}"
    )
    copy_slope = 0.0
    for name in COMMANDS:
        one, other = small[name], large[name]
        grown = other.amount - one.amount
        slope = (other.seconds - one.seconds) / grown
        cpu = (other.cpu_seconds - one.cpu_seconds) / grown * 1e9
        rest = one.seconds - slope * one.amount
        copy_slope = copy_slope or slope
        if name == "build":
            rate, share, work = f"{1e-6 / slope:.0f} M parameters/s", "", "s/10⁹ parameters"
        else:
            rate, share, work = f"{1e-9 / slope:.2f} GB/s", f"{copy_slope / slope:.2f}", "s/GB"
        print(
            f"{name:<16}{one.seconds:>10.2f}{other.seconds:>10.2f}{rest:>14.2f}"
            f"{rate:>22}{share:>10}{f'{cpu:.2f} {work}':>22}"
        )


if __name__ == "__main__":
    main()
