"""What an interrupted command says that it has left: what is there, and no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import run

import patchc
import patchc.demo
import patchc.fixing.fix
from patchc.cli.main import app

NOTHING = "nothing was written"
AGAIN = "keeps what is done, and the same command goes on with it"
REQUESTS = ("--harmful", "h.jsonl", "--harmless", "s.jsonl")

COMMANDS: dict[str, tuple[str, ...]] = {
    "apply": ("x.patchc", "model"),
    "revert": ("x.patchc", "model"),
    "build": ("model",),
    "diff": ("model", "other"),
    "fold": ("x.patchc", "y.patchc"),
    "annotate": ("x.patchc",),
    "sign": ("x.patchc", "--key", "k"),
    "sign-model": ("model", "--key", "k"),
    "keygen": ("k",),
    "verify": ("x.patchc",),
    "inspect": ("x.patchc",),
    "report": ("x.patchc",),
    "evaluate": ("model", *REQUESTS),
    "landscape": ("model", *REQUESTS),
    "sweep": ("model", *REQUESTS),
    "fit": ("model", *REQUESTS),
    "fix": ("model", *REQUESTS),
    "derive": ("model",),
    "demo": (),
}
"""Commands and what they need, besides the output."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def interrupted(monkeypatch: pytest.MonkeyPatch, command: str, write: Callable[[], Any]) -> None:
    """Let a command's function write, and then be interrupted."""

    def verb(*_: object, **__: object) -> None:
        write()
        raise KeyboardInterrupt

    if command == "demo":
        monkeypatch.setattr(patchc.demo, "play", verb)
    else:
        monkeypatch.setattr(patchc, command, verb)
        monkeypatch.setattr(patchc.fixing.fix, "plan_fix", verb)


def told(*arguments: str) -> str:
    code, out, err = run(*arguments)
    assert (code, out) == (130, "")
    assert err.startswith("patchc: interrupted; ")
    return err.removeprefix("patchc: interrupted; ").removesuffix("\n")


def test_a_command_without_an_output(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("apply", "revert", "verify", "inspect", "evaluate", "demo"):
        interrupted(monkeypatch, command, lambda: None)
        assert told(command, *COMMANDS[command]) == NOTHING, command


@pytest.mark.parametrize("command", ["apply", "revert", "build", "fix", "derive"])
def test_a_dry_run(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    Path("out/work").mkdir(parents=True)
    interrupted(monkeypatch, command, lambda: None)
    assert told(command, *COMMANDS[command], "-o", "out", "--dry-run") == NOTHING


@pytest.mark.parametrize(
    "command", ["evaluate", "landscape", "sweep", "fit", "fix", "derive", "demo"]
)
def test_an_output_that_was_not_begun(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    interrupted(monkeypatch, command, lambda: None)
    assert told(command, *COMMANDS[command], "-o", "out") == NOTHING


@pytest.mark.parametrize("command", ["apply", "revert", "build", "diff", "fold"])
def test_an_output_that_appears_at_once(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    interrupted(monkeypatch, command, lambda: None)
    assert told(command, *COMMANDS[command], "-o", "out") == "nothing new was left at out"


def test_keys_and_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchc.cli.passwords.password_of", lambda *_: None)
    for command in ("keygen", "sign"):
        interrupted(monkeypatch, command, lambda: None)
    assert told("keygen", "k") == "nothing new was left at k"
    given = ("sign", *COMMANDS["sign"])
    for output in ("-o", "--detached"):
        assert told(*given, output, "out") == "nothing new was left at out"
    assert told(*given) == "x.patchc is whole, signed or as it was"


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (("keygen", "k"), "k"),
        (("sign", *COMMANDS["sign"], "-o", "out"), "out"),
        (("sign", *COMMANDS["sign"], "--detached", "out"), "out"),
    ],
)
def test_keys_and_signatures_that_are_written(
    monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], written: str
) -> None:
    monkeypatch.setattr("patchc.cli.passwords.password_of", lambda *_: None)
    interrupted(monkeypatch, given[0], Path(written).touch)
    assert run(*given) == (0, "", "patchc: warning: interrupted; the output was written\n")


@pytest.mark.parametrize(
    ("command", "output", "kept"),
    [
        ("evaluate", "r.jsonl", "r.jsonl"),
        ("landscape", "r.jsonl", "r.jsonl"),
        ("sweep", "r.jsonl", "r.jsonl"),
        ("fit", "x.patchc", "x.fit.jsonl"),
    ],
)
def test_a_file_that_grows(
    monkeypatch: pytest.MonkeyPatch, command: str, output: str, kept: str
) -> None:
    interrupted(monkeypatch, command, lambda: Path(kept).write_text("a line\n"))
    assert told(command, *COMMANDS[command], "-o", output) == f"{kept} {AGAIN}"
    interrupted(monkeypatch, command, lambda: None)
    assert told(command, *COMMANDS[command], "-o", output) == f"{kept} is as it was"


def test_the_trace_of_a_fit_under_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, "fit", lambda: Path("t.jsonl").write_text("a line\n"))
    given = ("fit", *COMMANDS["fit"], "-o", "x.patchc", "--trace", "t.jsonl")
    assert told(*given) == f"t.jsonl {AGAIN}"


def test_the_folder_of_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, "fix", lambda: Path("out/work").mkdir(parents=True, exist_ok=True))
    for _ in range(2):  # the second one goes on with the stages of the first
        assert told("fix", *COMMANDS["fix"], "-o", "out") == f"out {AGAIN}"


def test_a_direction_that_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, "derive", lambda: Path("out/se").mkdir(parents=True))
    left = told("derive", "model", "-o", "out")
    assert left == "out/se was written whole; leave it out with --directions, or remove it"


def test_what_the_work_itself_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a derivation with scratch files and a run in place do."""

    def verb(*_: object, **__: object) -> None:
        raise KeyboardInterrupt("the journal has it")

    monkeypatch.setattr(patchc, "apply", verb)
    assert told("apply", *COMMANDS["apply"], "--in-place") == "the journal has it"


def test_the_folder_of_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, "demo", lambda: Path("out").mkdir())
    told_by_demo = "out has what was made until then; remove it to begin again"
    assert told("demo", "-o", "out") == told_by_demo


def test_every_command_that_writes_is_looked_at() -> None:
    import typer

    group: Any = typer.main.get_command(app)
    outputs = {
        name
        for name in group.list_commands(None)
        if any(one.name == "out" for one in group.get_command(None, name).params)
    }
    assert outputs <= COMMANDS.keys()
