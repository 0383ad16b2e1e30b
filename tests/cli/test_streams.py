"""Standard streams that are full, closed, or of a narrow encoding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_checkpoints import PatchedModel, tree

import patchc
from patchc.errors import PartlyPatchedError, StorageError

FULL, CLOSED, GONE = ">/dev/full", ">&-", "| true"
ENVIRONMENT = os.environ | {"PYTHONIOENCODING": "utf-8"}


def shell(where: str, *arguments: object, **environment: str) -> tuple[int, str, str]:
    """A command whose streams a shell redirects: its exit code, standard output and error."""
    script = f'set -o pipefail; "$@" {where}'
    command = [sys.executable, "-m", "patchc", *map(str, arguments)]
    done = subprocess.run(
        ["bash", "-c", script, "bash", *command],
        capture_output=True,
        check=False,
        env=ENVIRONMENT | environment,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("where", "why"), [(FULL, "the disk is full"), (CLOSED, "standard output is closed")]
)
@pytest.mark.parametrize("command", ["inspect", "--help", "--dry-run"])
def test_what_is_there_to_be_read_has_to_be_printed(
    patched: PatchedModel, tmp_path: Path, command: str, where: str, why: str
) -> None:
    out = tmp_path / "out"
    arguments: dict[str, tuple[object, ...]] = {
        "inspect": ("inspect", patched.patch),
        "--help": ("apply", "--help"),
        "--dry-run": ("apply", patched.patch, patched.base, "-o", out, "--dry-run"),
    }
    code, _, err = shell(where, *arguments[command])
    assert code == StorageError.exit_code
    assert err.startswith("patchc: error: cannot print the ")
    assert why in err
    assert err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("where", [FULL, CLOSED, f"{CLOSED} 2>&- <&-"])
def test_an_output_counts_without_its_report(
    patched: PatchedModel, tmp_path: Path, where: str
) -> None:
    """The files that it opens do not take the place of closed streams."""
    out = tmp_path / "out"
    code, _, err = shell(where, "apply", patched.patch, patched.base, "-o", out)
    assert code == 0
    assert tree(out) == tree(patched.tuned)
    if "2>&-" not in where:
        assert err.startswith("patchc: warning: cannot print the report: ")
        assert err.endswith("; the output was written\n")
        assert err.count("\n") == 1


def test_a_model_changed_in_place_counts_too(patched: PatchedModel) -> None:
    code, _, err = shell(FULL, "apply", patched.patch, patched.base, "--in-place", "--json")
    assert code == 0
    assert "the output was written" in err
    assert tree(patched.base) == tree(patched.tuned)


def test_a_signature_counts_too(patched: PatchedModel, tmp_path: Path) -> None:
    key = patchc.keygen(tmp_path / "key").private
    for more in ((), ("--detached", tmp_path / "x.sig")):
        code, _, err = shell(FULL, "sign", patched.patch, "--key", key, *more)
        assert code == 0
        assert "the output was written" in err
    assert patchc.inspect(patched.patch).signatures
    assert (tmp_path / "x.sig").exists()


@pytest.mark.parametrize("command", ["inspect", "--version"])
def test_a_reader_that_has_left_is_no_error(patched: PatchedModel, command: str) -> None:
    more = [patched.patch] if command == "inspect" else []
    assert shell(GONE, command, *more) == (0, "", "")


def test_a_verdict_that_cannot_be_printed_is_still_the_exit_code(patched: PatchedModel) -> None:
    shard = "model-00001-of-00002.safetensors"
    (patched.tuned / shard).write_bytes((patched.base / shard).read_bytes())
    code, _, err = shell(FULL, "verify", patched.patch, patched.tuned)
    assert code == PartlyPatchedError.exit_code
    assert "partly patched" in err


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-"])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(("verify", "nowhere"), 5), (("verify",), 2), (("verify", "x", "--threads=0"), 2)],
)
def test_an_error_that_cannot_be_printed_is_still_the_exit_code(
    where: str, arguments: tuple[str, ...], expected: int
) -> None:
    assert shell(where, *arguments) == (expected, "", "")


def test_a_name_that_the_terminal_cannot_show(patched: PatchedModel) -> None:
    """In a report, in a table, and in an error."""
    folder = patched.patch.parent
    name = os.fsdecode(b"\xff\xc3\xa9.patchc")
    (folder / name).write_bytes(patched.patch.read_bytes())
    narrow = {"PYTHONIOENCODING": "ascii"}
    code, out, err = shell("", "inspect", folder / name, **narrow)
    assert (code, err) == (0, "")
    assert r"\udcff\xe9.patchc" in out
    assert "by layer" in out
    code, out, err = shell("", "verify", folder / "no" / name, **narrow)
    assert (code, out) == (5, "")
    assert r"\udcff\xe9.patchc: cannot open the patch" in err
    code, out, err = shell("", "inspect", folder / name)
    assert (code, err) == (0, "")
    assert r"\udcffé.patchc" in out


def test_an_error_holds_nothing_that_a_terminal_acts_on(patched: PatchedModel) -> None:
    """Such as the name of a file in a downloaded index."""
    index = patched.base / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["lm_head.weight"] = "\x1b]0;title\x07.safetensors"
    index.write_text(json.dumps(content))
    code, out, err = shell("", "verify", patched.patch, patched.base)
    assert (code, out) == (3, "")
    assert r"\x1b]0;title\x07.safetensors: no such file" in err
    assert "\x1b" not in err
