"""One set of numbers: the options, the command line, docs/reference/defaults.md, the experiment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from command_line import run

import patchc
from patchc import FitOptions, FixOptions
from patchc.derivation.derive_options import DeriveOptions, Objective
from patchc.errors import DeriveError
from patchc.fixing.fix_options import DENSITY

ROOT = Path(__file__).parents[2]
DOCUMENTED = {
    "--objective": "objective",
    "--se-learning-rate": "se.learning_rate",
    "--se-steps": "se.steps",
    "--osm-learning-rate": "osm.learning_rate",
    "--osm-steps": "osm.steps",
    "--loss-ceiling": "se.loss_ceiling",
    "--batch-size": "se.batch_size",
    "--clip": "se.clip",
    "--score-samples": "score_samples",
    "--npo-beta": "npo_beta",
    "--margin-learning-rate": "margin.learning_rate",
    "--margin-steps": "margin.steps",
    "--margin-target": "margin_target",
    "--batch-size for margin": "margin.batch_size",
    "--retain": "retain",
}
FITTED = {
    "--budget of fit": "steps",
    "--batch-size of fit": "batch_size",
    "--learning-rate of fit": "learning_rate",
    "--target of fit": "target",
    "--anchor of fit": "anchor_weight",
    "--shrinkage of fit": "shrinkage",
    "--candidates of fit": "candidates",
}
OF_THE_PAIR = [
    name for name in DOCUMENTED if not name.startswith(("--margin", "--npo", "--retain"))
]


def find(options: dict[str, Any], name: str) -> Any:
    value: Any = options
    for part in DOCUMENTED[name].split("."):
        value = value[part]
    return value


def documented() -> dict[str, str]:
    """The options in the tables of docs/reference/defaults.md; a row may name several."""
    found = {}
    for line in (ROOT / "docs/reference/defaults.md").read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"\| (`--.*?) \| (.*?) \|", line):
            names, values = match[1].replace("`", "").split(", "), match[2].split(", ")
            found |= dict(zip(names, values, strict=True))
    return found


def read(text: str) -> Any:
    if text == "never":
        return None
    return float(text) if re.fullmatch(r"[\d.e-]+", text) else text


def test_the_documents_name_the_options_defaults() -> None:
    options = DeriveOptions().to_json()
    found = documented()
    weights = {"--anchor-weight", "--anchor-weight for margin"}
    assert found.keys() == {*DOCUMENTED, *FITTED, *weights, "--density of fix"}
    for name, field in FITTED.items():
        assert read(found[name]) == getattr(FitOptions(), field), name
    assert read(found["--density of fix"]) == DENSITY
    for name in DOCUMENTED:
        assert read(found[name]) == find(options, name), name
    for shared in ("batch_size", "clip", "loss_ceiling"):
        assert options["osm"][shared] == options["se"][shared]
    for name, objective in (("", "pair"), (" for margin", "margin")):
        weight = DeriveOptions(objective=objective).weight_of_anchor  # type: ignore[arg-type]
        assert read(found[f"--anchor-weight{name}"]) == weight


@pytest.mark.parametrize("objective", get_args(Objective))
def test_the_command_line_derives_with_the_options_defaults(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[DeriveOptions] = []

    def derive(*_: object, options: DeriveOptions, **__: object) -> None:
        taken.append(options)
        raise DeriveError("enough")

    monkeypatch.setattr(patchc, "derive", derive)
    code, _, _ = run("derive", "base", "--objective", objective, "-o", "out")
    assert code == DeriveError.exit_code
    assert taken == [DeriveOptions(objective=objective)]


@pytest.mark.parametrize(
    ("command", "options"), [("fit", FitOptions()), ("fix", FixOptions())], ids=["fit", "fix"]
)
def test_the_command_line_fits_with_the_options_defaults(
    command: str, options: FitOptions | FixOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Any] = []

    def take(*_: object, options: object, **__: object) -> None:
        taken.append(options)
        raise DeriveError("enough")

    monkeypatch.setattr(patchc, command, take)
    requests = ("--harmful", "h.jsonl", "--harmless", "s.jsonl")
    code, _, _ = run(command, "base", *requests, "-o", "out")
    assert code == DeriveError.exit_code
    assert taken == [options]


def run_code(code: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own that imports from the folders."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_experiment_fixes_with_the_defaults() -> None:
    code = "import rows; print(repr(rows.rows()[0].options))"
    finished = run_code(code, ROOT / "benchmarks/fix", ROOT)
    assert finished.stdout.strip() == repr(FixOptions()), finished.stderr


def test_the_experiment_derives_with_the_defaults() -> None:
    code = "import json, run; print(json.dumps(run.DERIVE.to_json()))"
    finished = run_code(code, ROOT / "benchmarks/smollm2", ROOT / "tests/support", ROOT)
    assert finished.returncode == 0, finished.stderr
    experiment = json.loads(finished.stdout)
    for name in OF_THE_PAIR:
        assert find(experiment, name) == find(DeriveOptions().to_json(), name), name
