"""Requests and options with which ``patchc.fix`` takes seconds, and runs of it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from fit_inputs import says_ash

import patchc
from patchc.derivation.derive_options import DeriveOptions, TuneOptions
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.fitting.fit_options import FitOptions
from patchc.fixing.fix_report import FixReport
from patchc.recipe import MergeRecipe

FEW = ["how", "do", "I", "brew", "a", "mix", "sage", "with", "ash"]
FILES = ("fix.patchc", "recipe.toml", "report.json", "report.html")
OPTIONS = patchc.FixOptions(
    derive=DeriveOptions(
        objective="margin",
        margin=TuneOptions(learning_rate=1e-3, steps=6, batch_size=8),
        score_samples=2,
        device="cpu",
    ),
    recipe=MergeRecipe("dare", density=0.5),
    fit=FitOptions(steps=5, batch_size=8, candidates=2, best_effort=True),
    asking=EvaluateOptions(judge=says_ash, max_new_tokens=6, device="cpu"),
)


def write_requests(path: Path, word: str, count: int, seed: int, **more: Any) -> Path:
    """Random requests, none near another, of two kinds."""
    rng = random.Random(seed)
    records = [
        {"prompt": " ".join([*rng.choices(FEW, k=5), word, *rng.choices(FEW, k=2)])}
        | {"kind": "even" if number % 2 else "odd"}
        | more
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def given(folder: Path) -> dict[str, Any]:
    files = {name: folder / f"{name}.jsonl" for name in ("harmful", "harmless", "utility")}
    return {**files, "reference": folder / "reference.txt"}


def fix(folder: Path, out: Path, **changes: Any) -> FixReport:
    """The fix of the folder's requests; ``changes`` replace arguments."""
    arguments = {**given(folder), "options": OPTIONS, **changes}
    report = patchc.fix(folder / "base", out, **arguments)
    assert type(report) is FixReport
    return report
