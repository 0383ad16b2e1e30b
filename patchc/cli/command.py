"""A command: its manner, and what has become of its output where it is stopped."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from patchc.cli.common_options import DOWNLOAD, manner
from patchc.cli.config_file import key_of
from patchc.cli.following_files import repeat_options
from patchc.cli.left_behind import LeftBehind
from patchc.cli.output import warn
from patchc.cli.printing_notes import printing_notes
from patchc.cli.streams import drop_output, take_print_error
from patchc.cli.voice import speaking
from patchc.errors import UsageError
from patchc.hub_models import allow_downloads
from patchc.jit import not_kept
from patchc.regular_file import NO_FILE_HAS, is_possible
from patchc.system_errors import storage_error

_WRITTEN = "the output was written"
_WHOLE = (
    "build", "diff", "apply", "revert", "fold", "annotate", "keygen", "sign", "sign-model",
)  # fmt: skip
"""Commands whose output appears at once, so that it is complete where there is any."""


class Command(TyperCommand):
    """One of the commands; what is printed is its report.

    A report that cannot be printed is an error for a command that has nothing else to show.
    """

    _arguments: tuple[str, ...] = ()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line; a value that a file gives is named by its place there."""
        self._arguments = tuple(args)
        try:
            left = super().parse_args(ctx, repeat_options(args, self.params))
            for name, value in ctx.params.items():
                _check_encodable(name, value)
            return left
        except typer.BadParameter as error:
            name = getattr(error.param, "name", None)
            source = ctx.get_parameter_source(name) if name else None
            if source is None or source.name != "DEFAULT_MAP":
                raise
            where = f"config {ctx.params['config']}: [{self.name}] {key_of(error.param)}"
            raise UsageError(f"{where}: {error.message}") from error

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and see to what has become of its report."""
        with (
            speaking(manner(ctx, self._arguments)),
            printing_notes(),
            allow_downloads(bool(ctx.params.get(DOWNLOAD))),
        ):
            try:
                return self._invoke(ctx)
            finally:
                if self.name != "warm-up" and (problem := not_kept()):
                    warn(problem)

    def _invoke(self, ctx: Any) -> Any:
        out = _output(ctx.params) if self.name in _WHOLE else None
        there_before = _has_content(out)
        output = LeftBehind(self.name, ctx.params)
        try:
            result = super().invoke(ctx)
            error = take_print_error()
        except KeyboardInterrupt as interrupt:
            if there_before or not _has_content(out):
                raise KeyboardInterrupt(told(interrupt) or output.tell()) from interrupt
            drop_output()
            warn(f"interrupted; {_WRITTEN}")
            return None
        if error:
            problem = storage_error(error, "the report", "print")
            if not (self.name == "sign" or _writes(ctx.params)):
                raise problem
            warn(f"{problem}; {_WRITTEN}")
        return result


def _check_encodable(name: str, value: object) -> None:
    """Refuse what no path of the system can hold, before anything opens it."""
    if isinstance(value, list | tuple):
        for one in value:
            _check_encodable(name, one)
    elif isinstance(value, str | Path) and not is_possible(value):
        raise UsageError(f"{name.replace('_', '-')}: {str(value)!r:.80} {NO_FILE_HAS}; correct it")


def told(error: BaseException | None) -> str:
    """Return the message of an interrupt, or of the one before it: a second one has none."""
    while error and not (isinstance(error, KeyboardInterrupt) and str(error)):
        error = error.__context__
    return str(error or "")


def _writes(parameters: Mapping[str, Any]) -> bool:
    asked = any(parameters.get(name) for name in ("out", "in_place", "plot"))
    return asked and not parameters.get("dry_run")


def _output(parameters: Mapping[str, Any]) -> Path | None:
    return parameters.get("out") or parameters.get("detached")


def _has_content(path: Path | None) -> bool:
    if path is None:
        return False
    with suppress(OSError), os.scandir(path) as content:
        return any(content)
    return os.path.lexists(path)
