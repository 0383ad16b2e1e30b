"""Interrupts at any moment: while modules are imported, in a command, and after its work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from tiny_checkpoints import PatchedModel

import patchc.cli.output

NOTHING_WRITTEN = "patchc: interrupted; nothing was written\n"

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
import os, signal, threading, time

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

def hangs(prompts, replies):
    threading.Thread(target=waits, args=(prompts, replies)).start()
    asked(prompts, replies)

if os.environ.get("AT_IMPORT"):
    try:
        interrupt()
    except BaseException:
        pass
"""


def ran(command: list[str], **options: Any) -> tuple[int, str, str]:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, **options
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("module", ["patchc.cli.main", "typer", "patchc.errors"])
def test_an_interrupt_before_a_command_begins(module: str, name: str) -> None:
    code = AT_IMPORT.format(signal=name)
    assert ran([sys.executable, "-c", code, module, "verify", "x"]) == (130, "", NOTHING_WRITTEN)


@pytest.fixture
def evaluation(tmp_path: Path) -> list[str]:
    """An evaluation of a stored reply, up to the name of its judge in the file ``judge.py``."""
    (tmp_path / "judge.py").write_text(JUDGE)
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"prompt": "brew a tea", "reply": "I cannot"}) + "\n")
    files = ["--harmful", asked, "--harmless", asked, "--generations", asked]
    code = AT_IMPORT.format(signal="SIGINT")
    return [sys.executable, "-c", code, "no module", "evaluate", *map(str, files), "--judge"]


@pytest.mark.parametrize(("judge", "at_import"), [("asked", ""), ("lost", ""), ("waits", "yes")])
def test_an_interrupt_is_never_lost(
    tmp_path: Path, evaluation: list[str], judge: str, at_import: str
) -> None:
    """Not in a destructor, and not in a module that survives what is raised in it."""
    environment = os.environ | {"AT_IMPORT": at_import}
    ended = ran([*evaluation, f"judge:{judge}"], cwd=tmp_path, env=environment)
    assert ended == (130, "", NOTHING_WRITTEN)


def test_a_second_interrupt_ends_a_process_that_hangs(
    tmp_path: Path, evaluation: list[str]
) -> None:
    with subprocess.Popen(
        [*evaluation, "judge:hangs"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as hanging:
        assert hanging.stderr
        assert hanging.stderr.readline() == NOTHING_WRITTEN
        while hanging.poll() is None:
            hanging.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert hanging.stderr.read() == ""
    assert hanging.returncode == 130


def test_an_interrupt_that_waited_to_the_end_kills_nothing() -> None:
    code = """
import os, signal, sys, time
from patchc.cli import interrupts

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "this":
            os.kill(os.getpid(), signal.SIGINT)

interrupts._AGAIN = 0.5
signal.signal(signal.SIGINT, interrupts.end_at_once)
sys.meta_path.insert(0, Interrupt())
with interrupts.interrupts_raised():
    import this
for number in signal.valid_signals():  # as Python does at its end
    if signal.getsignal(number) is interrupts._ignore:
        signal.signal(number, signal.SIG_DFL)
time.sleep(1)
"""
    assert ran([sys.executable, "-c", code])[0] == 0


@pytest.mark.parametrize("manner", [(), ("--json",)])
@pytest.mark.parametrize("writes", [True, False])
def test_an_interrupt_of_a_report_that_nobody_reads(
    patched: PatchedModel, tmp_path: Path, writes: bool, manner: tuple[str, ...]
) -> None:
    """As where ``less`` shows a part of it."""
    code = """
import os, signal
from patchc.cli.entry import main

write = os.write

def interrupted(descriptor, data):
    if descriptor == 1:
        os.kill(os.getpid(), signal.SIGINT)
    return write(descriptor, data)

os.write = interrupted
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
    given = ("apply", patched.patch, patched.base, "-o", tmp_path / "copy")
    command = [*map(str, given)] if writes else ["inspect", str(patched.patch)]
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    done = subprocess.run(
        [sys.executable, "-c", code, *command, *manner],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(writer)
    os.close(reader)
    written = "patchc: warning: interrupted; the output was written\n"
    assert (done.returncode, done.stderr) == ((0, written) if writes else (130, NOTHING_WRITTEN))


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
    assert (code, err) == (130, NOTHING_WRITTEN)


def test_an_output_that_was_there_before_is_not_the_interrupted_commands(
    patched: PatchedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(patchc, "diff", interrupt)
    code, _, err = run("diff", patched.base, patched.tuned, "-o", patched.patch)
    assert (code, err) == (130, f"patchc: interrupted; nothing new was left at {patched.patch}\n")
