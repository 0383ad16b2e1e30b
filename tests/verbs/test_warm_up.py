"""What is compiled beforehand, and that nothing is left to compile afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run
from tiny_checkpoints import PatchedModel

import patchc

SUPPORT = Path(__file__).parents[1] / "support"
NAMED = ("apply", "build", "diff", "verify", "revert", "fold", "inspect")


def process(cache: Path, *arguments: object, alone: Path | None = None) -> str:
    """What a process prints; ``alone``, it has no other code than that in ``cache``."""
    variables = {"PATCHC_CACHE": str(cache), "PYTHONPATH": str(SUPPORT)}
    if alone:
        variables["XDG_CACHE_HOME"] = str(alone)
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout


def test_nothing_is_left_to_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "kept"
    with monkeypatch.context() as patching:
        # A policy that cannot be satisfied: what is compiled for is made by the command itself.
        patching.setenv("PATCHC_POLICY", str(tmp_path / "gone.toml"))
        first = json.loads(process(cache, "-m", "patchc", "warm-up", *NAMED, "--json"))
    assert tuple(first["commands"]) == NAMED
    assert first["folder"] == str(cache)
    assert first["compiled"] + first["found"] <= len(list(cache.iterdir()))
    (tmp_path / "models").mkdir()
    runs = SUPPORT / "warm_runs.py"
    compiled, own = process(cache, runs, tmp_path / "models", alone=tmp_path / "no").splitlines()
    assert compiled == ""
    assert own == "1", "compilation is noticed"
    second = json.loads(
        process(cache, "-m", "patchc", "warm-up", *NAMED, "--json", alone=tmp_path / "no")
    )
    assert second["compiled"] == 0
    # A loop within another one is looked up only where the outer one is compiled.
    assert 0 < second["found"] <= first["compiled"] + first["found"]


def test_commands_without_loops_need_nothing() -> None:
    report = patchc.warm_up(["inspect"])
    assert (report.commands, report.compiled, report.found) == (("inspect",), 0, 0)


def test_an_unknown_command_is_named() -> None:
    with pytest.raises(patchc.UsageError, match=r"no command 'paint'.*apply"):
        patchc.warm_up(["apply", "paint"])
    code, _, err = run("warm-up", "paint")
    assert code == 2
    assert "paint" in err


def without_a_cache(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A command where no code can be kept."""
    (folder / "file").write_text("")
    nowhere = {"PATCHC_CACHE": f"{folder}/file/a", "XDG_CACHE_HOME": f"{folder}/file/b"}
    return subprocess.run(
        [sys.executable, "-m", "patchc", *map(str, arguments)],
        env=os.environ | nowhere,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_command_says_once_that_code_cannot_be_kept(
    patched: PatchedModel, tmp_path: Path
) -> None:
    patch = tmp_path / "rice.patchc"
    patchc.diff(patched.base, patched.tuned, out=patch, codec="rice")
    done = without_a_cache(tmp_path, "verify", patch)
    assert not done.returncode
    assert done.stderr.count("no folder for compiled code can be written; name a folder") == 1
    assert "patchc warm-up" in done.stderr
    assert without_a_cache(tmp_path, "inspect", patch).stderr == "", "it compiles nothing"


def test_code_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    done = without_a_cache(tmp_path, "warm-up", "diff")
    assert done.returncode == patchc.OutputError.exit_code
    assert "no folder for compiled code can be written; name a folder" in done.stderr
    assert done.stderr.count("PATCHC_CACHE") == 1
