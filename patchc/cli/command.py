"""A command: the output that it has written counts, even if its report cannot be printed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from patchc.cli.output import warn
from patchc.cli.streams import take_print_error
from patchc.system_errors import storage_error

_WRITTEN = "the output was written"
_WHOLE = ("build", "diff", "apply", "revert", "fold")
"""Commands whose output appears at once, so that it is complete where there is any."""


class Command(TyperCommand):
    """One of the commands; what is printed is its report.

    A report that cannot be printed is an error for a command that has nothing else to show.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and see to what has become of its report."""
        out = ctx.params.get("out") if self.name in _WHOLE else None
        there_before = _has_content(out)
        try:
            result = super().invoke(ctx)
        except KeyboardInterrupt:
            if there_before or not _has_content(out):
                raise
            warn(f"interrupted; {_WRITTEN}")
            return None
        if error := take_print_error():
            problem = storage_error(error, "the report", "print")
            if not _writes(ctx.params):
                raise problem
            warn(f"{problem}; {_WRITTEN}")
        return result


def _writes(parameters: Mapping[str, Any]) -> bool:
    asked = any(parameters.get(name) for name in ("out", "in_place", "plot"))
    return asked and not parameters.get("dry_run")


def _has_content(path: Path | None) -> bool:
    if path is None:
        return False
    with suppress(OSError), os.scandir(path) as content:
        return any(content)
    return os.path.lexists(path)
