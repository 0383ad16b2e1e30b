"""Systems that patchc is not made for: one sentence and its code, in place of a strange error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run
from tiny_checkpoints import PatchedModel, tree

from patchc.errors import UnsupportedSystemError

CODE = UnsupportedSystemError.exit_code

STRANGE = """
import os, signal, sys

{change}
from patchc.cli.entry import main
main()
"""

WINDOWS = """
# What Python has on Windows, as far as it can be taken away here.
import enum
os.name = "nt"
sys.platform = "win32"
del signal.SIGHUP, signal.SIGALRM, os.O_NOFOLLOW, os.O_CLOEXEC
signal.Signals = enum.IntEnum("Signals", {"SIGINT": 2, "SIGTERM": 15})
sys.modules["fcntl"] = None
"""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (WINDOWS, "(win32) has no POSIX files and signals; use Linux, on Windows in WSL"),
        ("sys.byteorder = 'big'", "stores the high byte of a number first"),
        ("sys.maxsize = 2**31 - 1", "has addresses of 32 bits; use a 64-bit Python"),
    ],
)
@pytest.mark.parametrize("arguments", [("--help",), ("verify", "x.patchc"), ()])
def test_the_first_command_says_so(change: str, told: str, arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STRANGE.format(change=change), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (CODE, "")
    assert done.stderr.startswith("patchc: error: this system (")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_run_in_place_needs_room_that_can_be_reserved(
    patched: PatchedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS; a copy needs nothing of that."""
    monkeypatch.delattr(os, "posix_fallocate")
    before = tree(patched.base)
    code, out, err = run("apply", patched.patch, patched.base, "--in-place")
    assert (code, out) == (CODE, "")
    assert "this system cannot reserve room for a file" in err
    assert tree(patched.base) == before
    assert run("apply", patched.patch, patched.base, "-o", patched.patch.parent / "copy")[0] == 0


def test_a_derivation_needs_to_know_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = pytest.importorskip("patchc.derivation.budget")
    read = Path.read_text

    def missing(self: Path, *arguments: object) -> str:
        if str(self) == "/proc/self/statm":
            raise FileNotFoundError(2, "No such file or directory", str(self))
        return read(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", missing)
    with pytest.raises(UnsupportedSystemError, match="no /proc, which tells how much memory"):
        budget.process_memory()
