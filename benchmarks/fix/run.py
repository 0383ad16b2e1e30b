"""Fixes of stand-in policies on SmolLM2-135M-Instruct, from the base to the tables.

    make bench-fix                                   # everything, in hours; stages are kept
    make bench-fix ROWS="default" POLICIES="beasts"  # some of it

The policy "places" is kept out of every choice: it is run with the defaults alone, at the end.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import smollm2
from backbone import Teaching, teach
from corpus import write_corpus
from judge import POLICIES
from report import write_report
from rows import Row, rows
from stages import Stages

import patchc
from patchc import EvaluateOptions
from patchc.errors import UnfixedError

WORK = smollm2.cache() / "bench-fix"
TABLES = Path(__file__).parents[2] / "docs" / "fix-tables.md"
REFERENCE = Path(__file__).parents[1] / "smollm2" / "reference.txt"
TEACHING = Teaching(steps=72)
HELD_OUT = "places"


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
        out = WORK / self.name / "rows" / f"{_folder(row.name)}-{seed}"
        asking = EvaluateOptions(judge=f"judge:{self.name}", max_new_tokens=24)
        options = replace(row.options, asking=asking, seed=seed)
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
                report = Experiment(name).fix(row, seed)
                print(name, row.name, seed, report["verdict"], flush=True)
                write_report(WORK, TABLES)


def _folder(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


if __name__ == "__main__":
    main()
