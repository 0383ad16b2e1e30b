"""The ``patchc`` command: its commands, and the one place where errors become exit codes."""

from __future__ import annotations

import gc
import signal
import sys
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from patchc.cli.apply import apply
from patchc.cli.build import build
from patchc.cli.demo import demo
from patchc.cli.derive import derive
from patchc.cli.diff import diff
from patchc.cli.evaluate import evaluate
from patchc.cli.fold import fold
from patchc.cli.inspect import inspect
from patchc.cli.ranks import INTERRUPTED, refuse_ranks
from patchc.cli.revert import revert
from patchc.cli.sweep import sweep
from patchc.cli.verify import verify
from patchc.errors import PatchcError
from patchc.version import __version__

_OBJECTS_BETWEEN_COLLECTIONS = 200_000
_LEFT = dict.fromkeys(
    ("evaluate", "sweep"), "an output file keeps what is done, and the same command goes on with it"
)


class _Commands(TyperGroup):
    """Turns errors into one message on standard error and their documented exit code."""

    def list_commands(self, _ctx: Any) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        found = super().resolve_command(ctx, args)
        refuse_ranks(found[0])
        return found

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PatchcError as error:
            typer.echo(f"patchc: error: {error}", err=True)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            usual = _LEFT.get(ctx.invoked_subcommand, "nothing was left at the output")
            left = str(error) or usual
            typer.echo(f"patchc: interrupted; {left}", err=True)
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    cls=_Commands,
    name="patchc",
    help="Compile, verify, apply and revert weight patches for language models.",
    epilog="Exit codes are listed in docs/exit-codes.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (
    derive,
    build,
    diff,
    apply,
    revert,
    verify,
    inspect,
    fold,
    evaluate,
    sweep,
    demo,
):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"patchc {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a termination signal or a lost terminal stops it as an interrupt does.

    Looking for garbage among what imports leave behind takes a third of a short command's time, at
    its start and, unless all is set aside, again at its end. What torch brings along complains when
    it is set aside.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
        signal.signal(signal.SIGHUP, _interrupt)
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    try:
        app()
    finally:
        if "torch" not in sys.modules:
            gc.freeze()


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
