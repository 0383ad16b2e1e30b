"""Runs the matrices that show what a broken run leaves behind, and prints their figures.

    python tests/torture/run.py [--points N] [--seed S] [MATRIX ...]

Ends with 1 if anything was lost, mixed, left behind, silently wrong or wrongly blamed. Each fault
is printed with the command that tries the same point again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

MATRICES = ("kills", "power_loss", "faults", "system_faults", "concurrency", "meddling", "loading")
POWER_LOSSES = 400


def main() -> int:
    """Run the matrices that were asked for."""
    asked = _parse()
    sys.path.append(str(Path(__file__).parents[1] / "support"))
    from cases import GROUP_BYTES

    from patchc.patching import pending_groups

    pending_groups.GROUP_BYTES = GROUP_BYTES
    failed = [_run(name, asked) for name in asked.matrices or MATRICES]
    return int(any(failed))


def _run(name: str, asked: argparse.Namespace) -> bool:
    """Run one matrix and print its figures; whether it found a fault."""
    from tables import Matrix

    module: Any = import_module(name)
    points = asked.points or getattr(module, "POINTS", POWER_LOSSES)
    faults = getattr(module, "FAULTS", ("lost",))
    kept = asked.keep or Path(tempfile.gettempdir(), "patchc-torture")
    matrix = Matrix(name, kept, faults, points, asked.seed, asked.only, asked.point)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-", dir=asked.folder) as folder:
        if name == "power_loss":
            counts = module.run_matrix(Path(folder), points, asked.seed)
            lost = ["lost: draw all points again to see where"] * counts.pop("lost")
            matrix.add("in place", 0, counts, lost, "power loss")
        else:
            module.run_matrix(Path(folder), matrix)
    matrix.print()
    print(f"{time.monotonic() - began:.0f} s\n", flush=True)
    return bool(matrix.failures)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("matrices", nargs="*", metavar="MATRIX", help=", ".join(MATRICES))
    parser.add_argument("--points", type=int, help="for each row; default: as the matrix says")
    parser.add_argument("--seed", type=int, default=0, help="of every choice; default: 0")
    parser.add_argument("--only", default="", metavar="ROW", help="the one row to try")
    parser.add_argument("--point", type=int, help="the one point to try")
    parser.add_argument("--folder", type=Path, help="where to work; default: the temporary folder")
    parser.add_argument("--keep", type=Path, help="where folders of points with a fault are kept")
    asked = parser.parse_args()
    if unknown := set(asked.matrices) - set(MATRICES):
        parser.error(
            f"no such matrix: {', '.join(sorted(unknown))}; there are {', '.join(MATRICES)}"
        )
    return asked


if __name__ == "__main__":
    sys.exit(main())
