"""Commands as a user gives them."""

from __future__ import annotations

from typer.testing import CliRunner

from patchc.cli.main import app


def run(*arguments: object) -> tuple[int, str, str]:
    """Run a command in this process: its exit code, standard output and standard error."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr
