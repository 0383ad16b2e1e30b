"""What diff, inspect and apply say of an update: which tensors and files it changes, and counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run as command
from tiny_checkpoints import Tensors, normal, write_model

BASE: Tensors = {f"layers.{n}.weight": normal((10, 10), "F32", n) for n in range(5)}


def run(*arguments: object) -> str:
    code, out, problems = command(*arguments)
    assert (code, problems) == (0, "")
    return out


def _changed(count: int) -> Tensors:
    """The base with one word changed in each of the first tensors."""
    tensors = {name: value.copy() for name, value in BASE.items()}
    for name in [*tensors][:count]:
        tensors[name].flat[7] += 1
    return tensors


def _pair(folder: Path, tuned: Tensors, **side_files: str) -> list[Path]:
    base = write_model(folder / "base", BASE, side_files={"tokenizer.json": "{}"})
    files = {"tokenizer.json": side_files.get("tokenizer", "{}")}
    return [base, write_model(folder / "tuned", tuned, side_files=files)]


def test_diff_names_the_files_that_it_carries(tmp_path: Path) -> None:
    base, tuned = _pair(tmp_path, BASE, tokenizer='{"a": 1}')
    patch = tmp_path / "u.patchc"
    shown = run("diff", base, tuned, "--out", patch)
    assert "changed  tokenizer.json  2 bytes to 8 bytes" in shown
    assert "changed  tokenizer.json  2 bytes to 8 bytes" in run("inspect", patch)
    found = json.loads(run("diff", base, tuned, "--out", tmp_path / "2.patchc", "--json"))
    assert [one["name"] for one in found["update"]["files"]] == ["tokenizer.json"]
    alone = run("diff", base, tuned, "--out", tmp_path / "3.patchc", "--weights-only", "--json")
    assert json.loads(alone)["update"] is None


@pytest.mark.parametrize("added", [1, 30])
def test_diff_names_the_first_of_the_tensors(tmp_path: Path, added: int) -> None:
    new = {f"new.{n:02}": normal((2,), "F32", n) for n in range(added)}
    base, tuned = _pair(tmp_path, BASE | new)
    shown = run("diff", base, tuned, "--out", tmp_path / "u.patchc")
    assert shown.count("added  new.") == min(added, 20)
    assert ("and 10 more" in shown) is (added == 30)
    assert run("inspect", tmp_path / "u.patchc").count("added  new.") == added


def test_counts_are_of_the_written_side(tmp_path: Path) -> None:
    """A renamed tensor is in the patch twice, and an added one only on one side."""
    renamed = {f"x.{name}": value for name, value in _changed(3).items()}
    base, tuned = _pair(tmp_path, renamed | {"new": normal((4,), "F32", 8)})
    patch = tmp_path / "u.patchc"
    shown = run("diff", base, tuned, "--out", patch, "--rename", "^=x.")
    for text in (shown, run("inspect", patch)):
        assert "7 of 504 entries of the result" in text
        assert "in 4 of 6 tensors" in text
        assert "10 entries in the patch, for apply and for revert" in text
    applied = run("apply", patch, base, "--out", tmp_path / "applied")
    assert "7 entries in 4 of 6 tensors" in applied
    reverted = run("revert", patch, tuned, "--out", tmp_path / "reverted")
    assert "3 entries in 3 of 5 tensors" in reverted
