"""Output of all commands: text for people, JSON for scripts."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchc.cli.layout import command_lines, fact_lines, table_lines, wrapped
from patchc.cli.streams import say
from patchc.cli.voice import voice
from patchc.escaping import MOST_IN_MESSAGE, cut, shown, visible, visible_json
from patchc.hub_cache import HubId, id_of_folder, parse_id
from patchc.json_values import json_values

if TYPE_CHECKING:
    from patchc.evaluation.paired import Change
    from patchc.evaluation.rates import Kinds, Rate

_MOST_IN_CELL, _MOST_IN_FACT = 250, 2500
"""Characters of a table's cell, and of a name or value of a list, that are shown."""
_MOST_FACTS = 1000

_SHOWN_AS = {"harmless": "over-refusal"}

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
    say(visible_json(json.dumps(json_values(report), indent=2, allow_nan=False)))


def tell(text: str) -> None:
    """Print a text of a report, unless the command is quiet; a terminal gets it between words."""
    if not voice().quiet:
        for line in wrapped(text, _width(), "", "  "):
            say(line)


def print_facts(title: str, facts: dict[str, object]) -> None:
    """Print a title and aligned names and values."""
    tell(printable(title))
    some = [*islice(facts.items(), _MOST_FACTS)]
    lines = {printable(name): printable(str(value)) for name, value in some}
    if len(facts) > len(some):
        lines["…"] = f"{len(facts) - len(some):,} more"
    _print_lines(fact_lines(lines, _width()))


def printable(text: str) -> str:
    """Write out what a terminal would act on or not show, and cut what is very long."""
    return shown(text, _MOST_IN_FACT)


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], hide_empty: bool = False
) -> None:
    """Print a table: texts to the left, numbers to the right.

    With ``hide_empty``, other columns than the first are left out where no row fills them.
    """
    if hide_empty:
        filled = [n for n in range(len(columns)) if n == 0 or any(row[n] for row in rows)]
        columns, *rows = ([row[n] for n in filled] for row in (columns, *rows))
    names, *cells = ([shown(cell, _MOST_IN_CELL) for cell in row] for row in (columns, *rows))
    tell(printable(title))
    _print_lines(table_lines(names, cells, _width()))


def print_next(*words: object, what: str = "next", folder: Path | None = None) -> None:
    """Print the command that naturally comes next, so that it can be copied into a shell.

    A name that cannot be printed as it is cannot be copied, so that there is no command then.

    Args:
        words: the command and its arguments.
        what: what stands before it.
        folder: where it is to run, if not here.
    """
    place = ["cd", shlex.quote(_as_word(folder)), "&&"] if folder else []
    given = [*place, "patchc", *(shlex.quote(_as_word(word)) for word in words)]
    if voice().quiet or any(visible(word) != word for word in given):
        return
    for line in command_lines(f"{what}:", given, _width()):
        say(line)


def _as_word(one: object) -> str:
    """Write an argument of a command; a path is never one that is taken for an option."""
    return f"./{one}" if isinstance(one, Path) and str(one).startswith("-") else str(one)


def print_next_without_dry_run() -> None:
    """Print the command that has just been planned, to be run."""
    manner = voice()
    words = [word for word in manner.arguments if word != "--dry-run"]
    if len(words) < len(manner.arguments):
        print_next(manner.command, *words)


def patched_name(model: Path) -> Path:
    """Return a name for the patched model, beside it or its own here, that nothing has."""
    return _free_name(model, "patched")


def reverted_name(model: Path) -> Path:
    """Return a name for the reverted model, beside it or its own here, that nothing has."""
    return _free_name(model, "reverted")


def _free_name(model: Path, what: str) -> Path:
    place = model if model.name not in ("", "..") else Path(os.path.realpath(model))
    if hub_id := id_of_folder(Path(os.path.realpath(model))) or _hub_id(model):
        place = Path(hub_id.name.rpartition("/")[2])
    stem, suffix = (place.stem, place.suffix) if place.is_file() else (place.name, "")
    numbers = chain([""], (f"-{n}" for n in count(2)))
    names = (place.with_name(f"{stem}-{what}{number}{suffix}") for number in numbers)
    return next(name for name in names if not os.path.lexists(name))


def _hub_id(model: Path) -> HubId | None:
    return None if os.path.lexists(model) else parse_id(str(model))


def _print_lines(lines: Iterable[str]) -> None:
    if not voice().quiet:
        for line in lines:
            say(line)


def _width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


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
    return rate.with_interval


def difference(change: Change) -> str:
    """Write how a rate differs, in points, with its interval and p-value."""
    return f"{change.points} p={change.p_value:.2g}"


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
    print_problem(f"warning: {message}")


def print_problem(message: str) -> None:
    """Print what is wrong to standard error; a terminal gets it between words."""
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
    # Line ends are a library's, or a stranger's, whose lines must not look like ours.
    lines = cut(message, MOST_IN_MESSAGE).split("\n")
    text = "\n  ".join(shown(line, MOST_IN_MESSAGE).rstrip() for line in lines)
    for line in wrapped(f"patchc: {cut(text, MOST_IN_MESSAGE)}", width, "", "  "):
        say(line, problem=True)


def size(nbytes: int) -> str:
    """Write a size in decimal units, or as bytes where it is small."""
    value, unit = float(nbytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{nbytes} bytes" if unit == "bytes" else f"{value:.2f} {unit}"
