"""Pipes, devices, sockets and links that lead nowhere, in place of each file that a command names.

None is waited for or read: each is refused at once, by its name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from special_files import COMMANDS, KINDS, OUTPUTS, named_paths, no_wait, write_place
from typer.main import get_command

from patchc.cli.main import app

NAMED = {
    (command.split()[0], option, path): (option, path, command)
    for command in COMMANDS
    for option, path in named_paths(command)
}
ALL = [(path, command) for _, path, command in NAMED.values()]
FEW = ("apply", "build", "derive", "evaluate")
INPUTS = [
    (path, command)
    for option, path, command in NAMED.values()
    if option not in OUTPUTS and command.startswith(FEW)
]
MODELS = (
    *("apply fix.patchc models/chat -o", "build", "derive", "diff", "evaluate", "fit", "fix"),
    *("landscape", "sign-model", "status", "sweep", "verify fix"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = Path.cwd()
    write_place(tmp_path_factory.mktemp("place"))
    yield Path.cwd()
    os.chdir(before)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


def refused(command: str, path: Path, kind: str, named: str) -> None:
    """Run a command with something that is no file at a path, and put back what was there."""
    aside = path.with_name(f"{path.name}.aside")
    if os.path.lexists(path):
        path.rename(aside)
    try:
        KINDS[kind](path)
        with no_wait(path):
            code, _, errors = run(*command.split())
        assert code != 0
        assert named in " ".join(errors.replace("│", " ").split())
        assert not path.is_file()
    finally:
        for made in (path, Path(f"{path}-it")):
            if os.path.lexists(made):
                made.unlink()
        if aside.exists():
            aside.rename(path)


def test_each_path_option_is_here() -> None:
    """A command or an option that comes later has to be put into the list."""
    group: Any = get_command(app)
    context = group.make_context("patchc", [], resilient_parsing=True)
    for name in group.list_commands(context):
        given = " ".join(one for one in COMMANDS if one.split()[0] == name).split()
        assert given, name
        for option in group.get_command(context, name).params:
            if "Path" in str(vars(option).get("type_descriptor")) and option.opts[0][0] == "-":
                assert any(one in given for one in option.opts), (name, option.opts)


@pytest.mark.parametrize("kind", ["pipe", "loop"])
@pytest.mark.parametrize(("path", "command"), ALL)
def test_pipes_and_links_in_a_circle_are_refused_at_once(
    place: Path, path: str, command: str, kind: str
) -> None:
    refused(command, place / path, kind, Path(path).name)


@pytest.mark.parametrize("kind", ["socket", "device", "dangling", "pipe by a link"])
@pytest.mark.parametrize(("path", "command"), INPUTS)
def test_other_special_files_are_refused_at_once(
    place: Path, path: str, command: str, kind: str
) -> None:
    refused(command, place / path, kind, Path(path).name)


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "additional_chat_templates/a.jinja",
    ],
)
@pytest.mark.parametrize("command", [one for one in COMMANDS if one.startswith(MODELS)])
def test_a_pipe_in_a_models_folder_is_refused_at_once(place: Path, name: str, command: str) -> None:
    path = place / "models/chat" / name
    path.parent.mkdir(exist_ok=True)
    refused(command, path, "pipe", name)
    if path.parent.name != "chat":
        shutil.rmtree(path.parent)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_text_is_no_path(command: str) -> None:
    """A variable of the shell that is not set does not stand for the working folder."""
    name, *words = command.split()
    for option, path in named_paths(command):
        if option not in ("--recipe", "--results"):  # may be a name; '' removes them
            code, _, errors = run(name, *("" if word == path else word for word in words))
            assert code == 2, errors
            assert "a path is empty" in errors


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("bad", ["\0", "\ud800"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_path_that_the_system_cannot_hold(command: str, bad: str) -> None:
    for _, path in named_paths(command):
        words = [word + bad if word == path else word for word in command.split()]
        code, _, errors = run(*words)
        assert code == 2, errors
