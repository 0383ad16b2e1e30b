"""Fixes of stand-in policies on SmolLM2-135M-Instruct, from the base to the tables.

    make bench-fix                                   # everything, in hours; stages are kept
    make bench-fix ROWS="default" POLICIES="beasts"  # some of it

The policy "places" is kept out of every choice: it is run with the defaults alone, at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import smollm2
from backbone import Teaching, teach
from corpus import write_corpus
from judge import POLICIES
from report import folder_of, write_report
from rows import DERIVED, Row, rows
from stages import Stages

import patchc
from patchc import EvaluateOptions
from patchc.errors import UnfixedError
from patchc.evaluation.requests import RequestSets, SetName, read_requests
from patchc.evaluation.trials import Trial
from patchc.fixing.fix_report import Comparison, Figures
from patchc.json_values import json_values

WORK = smollm2.cache() / "bench-fix"
TABLES = Path(__file__).parents[2] / "docs/explanation/fix-tables.md"
REFERENCE = Path(__file__).parents[1] / "smollm2" / "reference.txt"
TEACHING = Teaching(steps=72)
HELD_OUT = "places"

SETS: tuple[SetName, ...] = ("harmful", "harmless", "utility")
Copy = Callable[[Any, Any], Any]


class Experiment:
    """The stages of one policy."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stages = Stages(WORK / name)
        sources = ("policies.py", "questions.py", "judge.py", f"{name}.py")
        texts = [Path(__file__).with_name(source).read_text() for source in sources]
        self.corpus = self._stages.run(
            "corpus", {"texts": texts}, lambda folder: write_corpus(folder, POLICIES[name])
        )
        lessons = (self.corpus / "lessons.jsonl").read_text()
        self.backbone = self._stages.run(
            "backbone", {"lessons": lessons, "teaching": vars(TEACHING)}, self._teach
        )

    def fix(self, row: Row, seed: int) -> dict[str, Any]:
        """The report of a row with a seed."""
        out = self.out(row, seed)
        self._lend(row, seed, out)
        options = replace(row.options, asking=self._asking, seed=seed)
        part = "answered-" if row.answered else ""
        try:
            patchc.fix(
                self.backbone / "model",
                out,
                harmful=self._pair("harmful", part),
                harmless=self._pair("harmless", part),
                utility=self._pair("utility", ""),
                reference=REFERENCE,
                options=options,
            )
        except UnfixedError as error:
            print(f"{self.name}, {row.name}, seed {seed}: {error}", flush=True)
        found: dict[str, Any] = json.loads((out / "report.json").read_text())
        return found

    def out(self, row: Row, seed: int) -> Path:
        """The folder of a row's patch."""
        return self._rows / folder_of(row.name, seed)

    def measure_derived(self) -> None:
        """Reports of the pair's tuned models themselves, if a row of the pair has left them."""
        left = sorted(self._rows.glob("pair*/work/derived/se"))
        wanted = [name for name in DERIVED if not self._report(name).exists()]
        if not left or not wanted:
            return
        folders = {name: left[0].parent / direction for name, direction in DERIVED.items()}
        tests = {name: self._pair(name, "")[1] for name in SETS}
        found = patchc.evaluate(
            [self.backbone / "model", *folders.values()],
            **tests,
            reference=REFERENCE,
            options=self._asking,
        )
        requests = RequestSets(*(read_requests(path, name) for name, path in tests.items()))
        base, *tuned = (Figures.of(Trial.of(one, recipe=None), requests) for one in found.models)
        for name, figures in zip(DERIVED, tuned, strict=True):
            test = json_values(Comparison.of(base, figures))
            report = {"test": test, "patch_bytes": 0, "seconds": {}}
            self._report(name).parent.mkdir()
            self._report(name).write_text(json.dumps(report))

    @property
    def _rows(self) -> Path:
        return WORK / self.name / "rows"

    @property
    def _asking(self) -> EvaluateOptions:
        return EvaluateOptions(judge=f"judge:{self.name}", max_new_tokens=24)

    def _report(self, name: str) -> Path:
        return self._rows / folder_of(name, 0) / "report.json"

    def _lend(self, row: Row, seed: int, out: Path) -> None:
        """Give a new row what another may have made already; `fix` checks whether it fits."""
        if out.exists():
            return
        for other in rows():
            theirs = self._rows / folder_of(other.name, seed) / "work"
            lent: dict[str, Copy] = {"replies": shutil.copy2}
            if other.options.derive == row.options.derive:
                lent["derived"] = os.link
            for stage, copy in lent.items():
                if (theirs / stage).exists() and not (out / "work" / stage).exists():
                    shutil.copytree(theirs / stage, out / "work" / stage, copy_function=copy)
                    shutil.copy2(theirs / "stage.json", out / "work")

    def _pair(self, name: str, part: str) -> tuple[Path, Path]:
        return self.corpus / f"{part}{name}-dev.jsonl", self.corpus / f"{name}-test.jsonl"

    def _teach(self, folder: Path) -> None:
        teach(smollm2.base_model(), self.corpus / "lessons.jsonl", folder / "model", TEACHING)


def main() -> None:
    """Run what is asked for and not there yet, and write the tables of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", help="names of rows; all by default")
    parser.add_argument("--policies", nargs="*", default=list(POLICIES))
    parser.add_argument("--seeds", type=int, help="seeds of each row at most")
    chosen = parser.parse_args()
    for row in rows():
        if chosen.rows and row.name not in chosen.rows:
            continue
        for seed in range(min(row.seeds, chosen.seeds or row.seeds)):
            for name in chosen.policies:
                if name == HELD_OUT and (row.name != "default" or seed):
                    continue
                experiment = Experiment(name)
                report = experiment.fix(row, seed)
                print(name, row.name, seed, report["verdict"], flush=True)
                experiment.measure_derived()
                write_report(WORK, TABLES)


if __name__ == "__main__":
    main()
