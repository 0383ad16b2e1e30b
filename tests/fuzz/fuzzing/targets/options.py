"""Options of commands from a configuration file."""

from __future__ import annotations

from functools import cache
from typing import Any

from fuzzing.mutation.draws import Draws
from fuzzing.mutation.plain_text import mutate_words
from fuzzing.target import Target, expect, written
from patchc.cli.config_file import read_options

_COMMANDS = ("apply", "build")


@cache
def _command() -> Any:
    import typer
    from click import Context

    from patchc.cli.main import app

    group = typer.main.get_command(app)
    return group.get_command(Context(group), "apply")


def read(data: bytes) -> None:
    """Read the options of a command."""
    found = read_options(written("patchc.toml", data), "apply", _COMMANDS, _command().params)
    for value in found.values():
        expect(isinstance(value, str | bool | list), "an option is no text")


def mutate(data: bytes, draws: Draws) -> bytes:
    """Change the words of a file."""
    return mutate_words(data, draws)


TARGET = Target(
    "options", read, mutate, ("patchc.cli.config_file",), executions=1500, most_bytes=1 << 12
)
