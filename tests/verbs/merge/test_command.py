"""``patchc build`` with the recipe of a merge."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from merge_inputs import (
    FIRST,
    SECOND,
    small_models,
    write_sources,
)
from tiny_checkpoints import write_model

import patchc
from patchc import MergeRecipe


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "patchc", "build", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_builds_a_merge(tmp_path: Path) -> None:
    paths = write_sources(tmp_path, *small_models())
    tuned = [word for path in paths["tuned"] for word in ("--tuned", path)]
    words = ["--recipe", "ties", "--density", 0.4, "--weight", 1, "--weight", 2, "--lambda", 0.5]
    words += ["--scope", "global", "--exclude", "norm"]
    finished = _run(paths["base"], *tuned, *words, "-o", tmp_path / "cli.patchc", "--json")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["plan"]["candidates"] == [FIRST, SECOND]
    recipe = MergeRecipe(
        "ties", density=0.4, weight=(1, 2), lambda_=0.5, scope="global", exclude=("norm",)
    )
    patchc.build(**paths, out=tmp_path / "library.patchc", recipe=recipe)
    assert (tmp_path / "cli.patchc").read_bytes() == (tmp_path / "library.patchc").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "ties", "--alpha", "2"], "--alpha is not an option of ties"),
        (["--recipe", "ties", "--top-se", "0.1"], "--top-se is not an option of ties"),
        (["--lambda", "2"], "--lambda is not an option of safepatching"),
        (["--recipe", "tise"], "recipe tise: cannot read.*ties"),
        (["--recipe", "dare", "--weight", "1"], "dare needs at least one tuned model"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, words: list[str], message: str
) -> None:
    base = write_model(tmp_path / "base", small_models()[0])
    finished = _run(base, *words, "-o", tmp_path / "m.patchc")
    assert finished.returncode == 2
    assert re.search(message, finished.stderr)
    assert "Traceback" not in finished.stderr
