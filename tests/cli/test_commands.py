"""The command line: help, exit codes, JSON, and one message instead of a traceback."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from command_line import run
from safetensors.numpy import save_file

import patchc.errors
from patchc.cli.main import app
from patchc.cli.showing_progress import showing_progress
from patchc.jit import inlined
from patchc.progress import ProgressEvent

ROOT = Path(__file__).parents[2]
GROUP = typer.main.get_command(app)
COMMANDS = GROUP.list_commands(None)  # type: ignore[attr-defined]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    name = "model.layers.0.mlp.up_proj.weight"
    base = {name: rng.normal(size=(40, 30)).astype(np.float32), "head": np.ones(3, np.float32)}
    for folder in ("base", "se", "osm"):
        (tmp_path / folder).mkdir()
        noise = rng.normal(size=(40, 30)).astype(np.float32) if folder != "base" else 0
        weights = {**base, name: base[name] + np.float32(1e-3) * noise}
        save_file(weights, tmp_path / folder / "model.safetensors")
        if folder != "base":
            scores = {name: np.abs(rng.normal(size=(40, 30))).astype(np.float32)}
            save_file(scores, tmp_path / folder / "scores.safetensors")
    return tmp_path


def build(models: Path, *more: object) -> tuple[int, str, str]:
    return run(
        "build", models / "base", "--se", models / "se", "--osm", models / "osm",
        "-o", models / "fix.patchc", *more,
    )  # fmt: skip


def test_the_main_job_by_commands(models: Path) -> None:
    assert build(models)[0] == 0
    patch = models / "fix.patchc"
    assert run("apply", patch, models / "base", "-o", models / "fixed")[0] == 0
    assert "patched" in run("verify", patch, models / "fixed")[1]
    assert run("revert", patch, models / "fixed", "-o", models / "back")[0] == 0
    original = (models / "base" / "model.safetensors").read_bytes()
    assert (models / "back" / "model.safetensors").read_bytes() == original
    assert (models / "fixed" / "model.safetensors").read_bytes() != original


def test_json_of_every_command_parses(models: Path) -> None:
    plan = json.loads(build(models, "--dry-run", "--json")[1])
    assert plan["dry_run"]
    assert not (models / "fix.patchc").exists()
    built = json.loads(build(models, "--json")[1])
    patch = models / "fix.patchc"
    described = json.loads(run("inspect", patch, "--json")[1])
    assert described["root"] == built["root"]
    assert described["total"]["changed"] == built["entries"]
    applied = run("apply", patch, models / "base", "-o", models / "fixed", "--json")[1]
    assert json.loads(applied)["changed_words"] == built["entries"]
    assert json.loads(run("verify", patch, "--json")[1])["state"] == "intact"
    made = run("diff", models / "base", models / "fixed", "-o", models / "up.patchc", "--json")[1]
    assert json.loads(made)["result_digest"] == built["result_digest"]
    reverted = run("revert", patch, models / "fixed", "-o", models / "back", "--json")[1]
    assert json.loads(reverted)["files"] == [str(models / "back" / "model.safetensors")]


def test_options_win_over_the_recipe_file(models: Path) -> None:
    recipe = models / "recipe.toml"
    recipe.write_text("alpha = 0.25\nbeta = 0.5\nseed = 7\n")
    assert build(models, "--recipe", recipe, "--beta", "2")[0] == 0
    used = json.loads(run("inspect", models / "fix.patchc", "--json")[1])["metadata"]["recipe"]
    assert (used["alpha"], used["beta"], used["seed"]) == (0.25, 2.0, 7)


def test_verify_tells_the_state_by_its_exit_code(models: Path) -> None:
    build(models)
    patch = models / "fix.patchc"
    run("apply", patch, models / "base", "-o", models / "fixed")
    assert run("verify", patch)[0] == 0
    assert run("verify", patch, models / "base")[0] == 0
    assert run("verify", patch, models / "fixed")[0] == 0
    assert run("verify", patch, models / "se")[0] == patchc.errors.WrongBaseError.exit_code


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("apply", "fix.patchc", "fixed", "-o", "x"), patchc.errors.AlreadyPatchedError),
        (("revert", "fix.patchc", "base", "-o", "x"), patchc.errors.NotPatchedError),
        (("apply", "fix.patchc", "se", "-o", "x"), patchc.errors.WrongBaseError),
        (("apply", "fix.patchc", "nowhere", "-o", "x"), patchc.errors.CheckpointError),
        (("apply", "nowhere.patchc", "base", "-o", "x"), patchc.errors.PatchFormatError),
        (("apply", "fix.patchc", "base", "-o", "base"), patchc.errors.OutputError),
        (("diff", "base", "se/scores.safetensors", "-o", "x"), patchc.errors.MismatchError),
    ],
)
def test_failures_print_one_message_and_their_code(
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    error: type[patchc.errors.PatchcError],
) -> None:
    build(models)
    run("apply", models / "fix.patchc", models / "base", "-o", models / "fixed")
    monkeypatch.chdir(models)
    code, out, err = run(*arguments)
    assert code == error.exit_code
    assert not out
    assert err.startswith("patchc: error: ")
    assert len(err.splitlines()) == 1
    assert not Path("x").exists()


def test_a_mistyped_option_is_a_usage_error(models: Path) -> None:
    assert build(models, "--retian", "0.5")[0] == patchc.errors.UsageError.exit_code
    assert build(models, "--retain", "1.5")[0] == patchc.errors.UsageError.exit_code


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_documented(name: str) -> None:
    command = GROUP.get_command(None, name)  # type: ignore[attr-defined]
    assert "Example: patchc " in (command.help or "")
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help text"


def test_the_table_of_exit_codes_is_the_error_tree() -> None:
    table = (ROOT / "docs/reference/exit-codes.md").read_text()
    documented = {
        name: int(code) for code, name in re.findall(r"^\| (\d+) \| `(\w+)`", table, re.M)
    }
    types = [one for one in vars(patchc.errors).values() if isinstance(one, type)]
    errors = [one for one in types if issubclass(one, patchc.errors.PatchcError)]
    own = [error for error in errors if "exit_code" in vars(error)]
    assert documented == {error.__name__: error.exit_code for error in own}
    assert all(error.__name__ in table for error in errors)
    assert len(set(documented.values())) == len(documented)


def test_hostile_provenance_does_not_reach_the_terminal(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = {"name": "\x1b[2J[red]evil[/red]", "version": "\x07"}
    monkeypatch.setattr("patchc.verbs.build.tool", lambda: hostile)
    build(models)
    code, out, _ = run("inspect", models / "fix.patchc")
    assert code == 0
    assert "[red]evil[/red]" in out
    assert not set(out) & {"\x1b", "\x07"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_told_that_loops_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with showing_progress() as progress:
        progress(ProgressEvent("apply", 1, 2, "bytes"))
    assert "apply" in terminal.getvalue()
    assert "compiling" not in terminal.getvalue()
    with showing_progress():
        assert inlined(lambda number: 2 * number)(3) == 6  # a small function is never kept
    assert "compiling for this processor" in terminal.getvalue()


def test_piped_output_has_no_progress(models: Path) -> None:
    command = [sys.executable, "-m", "patchc", "diff", "base", "se", "-o", "up.patchc"]
    done = subprocess.run(command, cwd=models, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
