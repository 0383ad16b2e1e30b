"""The sizes of patches beside those of peers and beside the entropy, on pairs of many kinds.

    make bench-size
    PYTHONPATH=tests/support:benchmarks/smollm2 \
        python benchmarks/size/run.py --pairs rl int8 --repeats 1

Pairs are made once and kept in the cache, as are the peers' figures; patchc is measured on every
run. With ``--pairs``, only those whose name contains one of the words are measured, and nothing is
written but to the terminal. The tables are written after each pair, and tell how many there are.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

import smollm2
from measure import Measured, measure
from pairs import Pairs
from peers import PACKAGES
from report import summary, write_report

HERE = Path(__file__).parents[1]
WORK = smollm2.cache() / "bench-size"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", nargs="*", default=[], help="words in the names of pairs")
    parser.add_argument("--repeats", type=int, default=2, help="of which the fastest counts")
    parser.add_argument("--folder", type=Path, help="where outputs come and go; in memory, best")
    options = parser.parse_args()
    memory = Path("/dev/shm")
    folder = options.folder or (memory if memory.is_dir() else None)
    chosen = {
        name: make
        for name, make in Pairs(WORK).all().items()
        if not options.pairs or any(word in name for word in options.pairs)
    }
    measured: list[Measured] = []
    for name, make in chosen.items():
        pair = make()
        print(f"{name}: {pair.what}", flush=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            measured.append(measure(pair, WORK, Path(scratch), options.repeats))
        print(summary(measured[-1]), flush=True)
        if not options.pairs:
            write_report(
                measured, HERE / "README.md", HERE / "size.md", _circumstances(len(chosen))
            )


def _circumstances(pairs: int) -> str:
    load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return (
        f"{pairs} pairs. {len(os.sched_getaffinity(0))} cores, shared with other work: times are "
        f"as observed, load averages at the end {load}. {packages}."
    )


if __name__ == "__main__":
    main()
