"""Commands as a user gives them."""

from __future__ import annotations

from functools import cache

from typer import testing

from patchc.cli.main import app

testing._get_command = cache(testing._get_command)  # type: ignore[attr-defined]
"""Commands are made once: that takes longer than most of them, and Typer makes them for each run.
"""


def run(*arguments: object) -> tuple[int, str, str]:
    """Run a command in this process: its exit code, standard output and standard error."""
    result = testing.CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr
