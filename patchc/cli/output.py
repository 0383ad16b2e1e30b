"""Output of all commands: text for people, JSON for scripts, progress on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from patchc.cli.streams import say
from patchc.jit import telling_of_compilation
from patchc.json_values import json_values
from patchc.progress import Progress, ProgressEvent, ignore_progress

if TYPE_CHECKING:
    from patchc.evaluation.paired import Change
    from patchc.evaluation.rates import Kinds, Rate

_PIPE_WIDTH = 160
_SHOWN_AS = {"harmless": "over-refusal"}
_COMPILING = "compiling for this processor, once"

FIGURES = {
    "harmful": "harmful",
    "over_refusal": "over-refusal",
    "misanswered": "misanswered",
    "utility": "utility",
    "degenerate": "degenerate",
    "perplexity": "perplexity",
    "answer_perplexity": "of answers",
}
"""The figures of a measured model, and their names in tables."""


def print_json(report: Any) -> None:
    """Print a report as JSON (:func:`~patchc.json_values.json_values`)."""
    say(json.dumps(json_values(report), indent=2, allow_nan=False))


def print_facts(title: str, facts: dict[str, object]) -> None:
    """Print a title and aligned names and values."""
    say(title)
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        say(f"  {_printable(name):<{width}}  {_printable(str(value))}")


def _printable(text: str) -> str:
    """Remove what a terminal would act on from a text of a patch file."""
    return "".join(char if char.isprintable() else "?" for char in text)


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], hide_empty: bool = False
) -> None:
    """Print a table: the first column to the left, the others to the right.

    With ``hide_empty``, other columns than the first are left out where no row fills them.
    """
    from rich.console import Console
    from rich.table import Table

    if hide_empty:
        shown = [n for n in range(len(columns)) if n == 0 or any(row[n] for row in rows)]
        columns, *rows = ([row[n] for n in shown] for row in (columns, *rows))
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(_printable(column), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_printable, row))
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    Console(width=width, highlight=False, markup=False, emoji=False).print(table)


def figures(
    measured: object,
    show: Callable[[Rate], str],
    digits: int = 4,
    names: Iterable[str] = FIGURES,
) -> tuple[str, ...]:
    """Write the cells of a measured model in a table; empty where it has no such figure.

    Args:
        measured: has the figures as attributes.
        show: writes a rate.
        digits: of a perplexity.
        names: the figures, in their order.
    """
    found = (getattr(measured, name) for name in names)
    return tuple(
        f"{value:.{digits}g}" if isinstance(value, int | float) else show(value) if value else ""
        for value in found
    )


def percent(rate: Rate) -> str:
    """Write a rate in percent."""
    return rate.percent


def share(rate: Rate) -> str:
    """Write a rate in percent, with its interval."""
    return f"{percent(rate)} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def difference(change: Change) -> str:
    """Write how a rate differs, in points, with its interval and p-value."""
    points = (100 * value for value in (change.difference, change.low, change.high))
    between, low, high = (f"{value:+.1f}" for value in points)
    return f"{between} [{low}, {high}] p={change.p_value:.2g}"


def print_kinds(models: Mapping[str, Kinds]) -> None:
    """Print the rates by kind of request, one column per model, if requests have kinds.

    There are rows for misanswered requests only if there are such requests.
    """
    keys = dict.fromkeys((name, kind) for f in models.values() for name in f for kind in f[name])
    rows = []
    for name, kind in keys:
        rates = [found.get(name, {}).get(kind) for found in models.values()]
        if name != "misanswered" or any(rate.hits for rate in rates if rate):
            title = f"{_SHOWN_AS.get(name, name)}: {kind}"
            rows.append((title, *(share(rate) if rate else "" for rate in rates)))
    if rows:
        print_table("rates by kind of request; [95 %]", ("", *models), rows)


def warn(message: str) -> None:
    """Print a warning to standard error."""
    say(f"patchc: warning: {message}", problem=True)


def size(nbytes: int) -> str:
    """Write a size in decimal units, or as bytes where it is small."""
    value, unit = float(nbytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{nbytes} bytes" if unit == "bytes" else f"{value:.2f} {unit}"


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Give a progress callback that draws a bar on a terminal and is silent elsewhere."""
    if not sys.stderr.isatty():
        yield ignore_progress
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[detail]}", markup=False),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, progress.TaskID] = {}

        def show(event: ProgressEvent) -> None:
            if event.stage not in tasks:
                tasks[event.stage] = bar.add_task(event.stage, detail="")
            bar.update(
                tasks[event.stage], completed=event.done, total=event.total, detail=event.detail
            )

        compiling = bar.add_task(_COMPILING, total=None, detail="", visible=False)
        with telling_of_compilation(
            lambda begins: bar.update(compiling, visible=begins, refresh=True)
        ):
            yield show
