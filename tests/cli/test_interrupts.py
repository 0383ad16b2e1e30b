"""Interrupts at any moment: while modules are imported, in a command, and after its work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run
from tiny_checkpoints import PatchedModel

import patchc.cli.output

NOTHING_LEFT = "patchc: interrupted; nothing was left at the output\n"

AT_IMPORT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.{signal})

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever runs the tests may ignore it
module = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupt())
from patchc.cli.entry import main
main()
"""

JUDGE = """
import os, signal, time

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class Waste:
    def __del__(self):
        interrupt()

def lost(prompts, replies):
    Waste()
    time.sleep(600)

def asked(prompts, replies):
    interrupt()
    time.sleep(600)

def waits(prompts, replies):
    time.sleep(600)

if os.environ.get("AT_IMPORT"):
    try:
        interrupt()
    except BaseException:
        pass
"""


def python(code: str, *arguments: object, **options: object) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **options,  # type: ignore[call-overload]
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("module", ["patchc.cli.main", "typer", "patchc.errors"])
def test_an_interrupt_before_a_command_begins(
    patched: PatchedModel, module: str, signal: str
) -> None:
    code = AT_IMPORT.format(signal=signal)
    assert python(code, module, "verify", patched.patch) == (130, "", NOTHING_LEFT)


@pytest.mark.parametrize(("judge", "at_import"), [("asked", ""), ("lost", ""), ("waits", "yes")])
def test_an_interrupt_is_never_lost(tmp_path: Path, judge: str, at_import: str) -> None:
    """Not in a destructor, and not in a module that survives what is raised in it."""
    (tmp_path / "judge.py").write_text(JUDGE)
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"prompt": "brew a tea", "reply": "I cannot"}) + "\n")
    code = AT_IMPORT.format(signal="SIGINT")
    files = ("--harmful", asked, "--harmless", asked, "--generations", asked)
    command = ("evaluate", *files, "--judge", f"judge:{judge}")
    ended = python(code, "none", *command, cwd=tmp_path, env=os.environ | {"AT_IMPORT": at_import})
    left = "an output file keeps what is done, and the same command goes on with it"
    assert ended == (130, "", f"patchc: interrupted; {left}\n")


def test_an_interrupt_after_the_output_is_no_error(
    patched: PatchedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(patchc.cli.output, "print_facts", interrupt)
    out = tmp_path / "up.patchc"
    code, _, err = run("diff", patched.base, patched.tuned, "-o", out)
    assert (code, err) == (0, "patchc: warning: interrupted; the output was written\n")
    assert patchc.verify(out, patched.base).state == "base"
    code, _, err = run("verify", out)
    assert (code, err) == (130, NOTHING_LEFT)


def test_an_output_that_was_there_before_is_not_the_interrupted_commands(
    patched: PatchedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(patchc, "diff", interrupt)
    code, _, err = run("diff", patched.base, patched.tuned, "-o", patched.patch)
    assert (code, err) == (130, NOTHING_LEFT)
