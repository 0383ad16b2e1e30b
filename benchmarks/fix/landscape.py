"""The landscape around a fix of SmolLM2-135M-Instruct, its figures, and the report of all of it.

    make bench-landscape                   # an hour and a half at most; goes on where it was ended
    make bench-landscape POLICIES=vault

Backbone and patch are those of `make bench-fix`, with the default and seed 0; they are made if they
are not there. Of the 200 test requests of each set, 64 are asked, evenly spaced.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import smollm2
from landscape_tables import write_tables
from rows import rows
from run import SETS, Experiment

import patchc
from patchc.json_values import json_values
from patchc.landscapes.pictures import draw_landscape

PAGES = Path(__file__).parents[2] / "docs/explanation/landscape"
ASKED = 64


def main() -> None:
    """Measure what is not there yet, draw it, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="potions")
    policy = parser.parse_args().policy
    experiment = Experiment(policy)
    row = next(row for row in rows() if row.name == "default")
    experiment.fix(row, 0)
    fixed = experiment.out(row, 0)
    folder = smollm2.cache() / "bench-landscape" / policy
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    report = patchc.landscape(
        experiment.backbone / "model",
        **{name: _some(experiment.corpus / f"{name}-test.jsonl", folder) for name in SETS},
        patch=fixed / "fix.patchc",
        out=folder / "landscape.jsonl",
        asking=patchc.EvaluateOptions(judge=f"judge:{policy}", max_new_tokens=32),
        progress=_Told(folder / "seconds.txt"),
    )
    print(f"{time.perf_counter() - start:.0f} s", flush=True)
    (folder / "landscape.json").write_text(json.dumps(json_values(report), indent=1))
    draw_landscape(report, PAGES)
    write_tables(report, PAGES / "tables.md")
    _write_page(fixed, folder)


class _Told:
    """Prints each place; keeps the seconds that the measured ones took in a file."""

    def __init__(self, path: Path) -> None:
        self._path, self._last = path, time.perf_counter()

    def __call__(self, event: patchc.ProgressEvent) -> None:
        now = time.perf_counter()
        took, self._last = now - self._last, now
        if event.unit == "places" and took > 1:
            with self._path.open("a") as file:
                file.write(f"{took:.1f} {event.detail}\n")
            print(f"{event.done}/{event.total}: {took:.0f} s, {event.detail}", flush=True)


def _some(path: Path, folder: Path) -> Path:
    """Write 64 lines of a file of requests, evenly spaced."""
    lines = path.read_text().splitlines(keepends=True)
    chosen = [lines[number * len(lines) // ASKED] for number in range(ASKED)]
    out = folder / path.name
    out.write_text("".join(chosen))
    return out


def _write_page(fixed: Path, folder: Path) -> None:
    """Write the report of the patch with everything that was measured."""
    results = [fixed / "report.json", fixed / "work" / "trace" / "fit.jsonl"]
    page = folder / "report.html"
    page.unlink(missing_ok=True)
    patchc.report(fixed / "fix.patchc", [*results, folder / "landscape.jsonl"], out=page)


if __name__ == "__main__":
    main()
