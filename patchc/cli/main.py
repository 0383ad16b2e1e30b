"""The ``patchc`` program: its commands, and the one place where errors become exit codes."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from patchc.cli.entry import INTERRUPTED, NOTHING
from patchc.cli.interrupts import end_at_interrupts, interrupts_raised
from patchc.cli.streams import drop_output, protect_streams, say, take_print_error
from patchc.errors import PatchcError
from patchc.version import __version__

_COMMANDS = (
    "fix",
    "derive",
    "build",
    "diff",
    "apply",
    "revert",
    "verify",
    "inspect",
    "report",
    "status",
    "fold",
    "annotate",
    "keygen",
    "sign",
    "sign-model",
    "verify-model",
    "evaluate",
    "landscape",
    "sweep",
    "fit",
    "demo",
    "warm-up",
)
_OBJECTS_BETWEEN_COLLECTIONS = 200_000
_WrongUse: Any = typer.BadParameter.__base__
"""The class of all errors in the use of commands and options, which Typer does not export."""


class _Commands(TyperGroup):
    """The group of commands. It loads a command when it is needed: loading all takes 40 ms.

    An error becomes one message on standard error and the documented exit code.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: dict[str, Any] = dict.fromkeys(_COMMANDS)

    def list_commands(self, _ctx: Any) -> list[str]:
        return list(self.commands)

    def get_command(self, _ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands and self.commands[cmd_name] is None:
            self.commands[cmd_name] = _load(cmd_name)
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        from patchc.cli.ranks import refuse_ranks

        found = super().resolve_command(ctx, args)
        refuse_ranks(found[0])
        return found

    def make_context(self, *values: Any, **named: Any) -> Any:
        with _visible_usage_errors():
            return super().make_context(*values, **named)

    def invoke(self, ctx: Any) -> Any:
        try:
            with interrupts_raised(), _visible_usage_errors():
                return super().invoke(ctx)
        except PatchcError as error:
            raise _failure(error) from error
        except (OSError, MemoryError, ImportError) as error:
            from patchc.system_errors import unmet_error

            of_the_system = unmet_error(error)
            if of_the_system is None:
                raise
            raise _failure(of_the_system) from error
        except KeyboardInterrupt as error:
            from patchc.cli.command import told
            from patchc.cli.output import print_problem

            drop_output()
            print_problem(f"interrupted; {told(error) or NOTHING}")
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    cls=_Commands,
    name="patchc",
    help="Compile, verify, apply and revert weight patches for language models.",
    epilog="Exit codes are listed in docs/reference/exit-codes.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@contextmanager
def _visible_usage_errors() -> Iterator[None]:
    """Write out in messages on wrong options what a terminal would act on, and cut them."""
    try:
        yield
    except _WrongUse as error:
        from patchc.escaping import MOST_IN_MESSAGE, shown

        error.message = shown(error.message, MOST_IN_MESSAGE)
        raise


def _load(name: str) -> Any:
    from patchc.cli.command import Command
    from patchc.cli.common_options import with_common_options

    alone = typer.Typer(add_completion=False)
    module = name.replace("-", "_")
    function = getattr(import_module(f"patchc.cli.{module}"), module)
    alone.command(cls=Command)(with_common_options(function))
    return typer.main.get_command(alone)


def _failure(error: PatchcError) -> typer.Exit:
    from patchc.cli.output import print_problem

    print_problem(f"error: {error}")
    return typer.Exit(error.exit_code)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"patchc {__version__}")
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


def run() -> None:
    """Run the command line, and exit with its code.

    Garbage collection over imported objects takes a third of a short command's time, so it runs
    rarely, and not at the end. With torch loaded it does run at the end: torch objects to freezing.
    """
    protect_streams()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    try:
        app()
    except SystemExit as end:
        code = int(end.code or 0)
        if (error := take_print_error()) and not code:
            from patchc.system_errors import storage_error

            code = _failure(storage_error(error, "the text", "print")).exit_code
        end_at_interrupts(code)
        raise SystemExit(code) from end
    finally:
        if "torch" not in sys.modules:
            gc.freeze()
