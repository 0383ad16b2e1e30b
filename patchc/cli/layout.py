"""Text for a screen of some width: names with values, and tables, never cut inside a word.

A width of None means that the text goes to a file or another program: every line is whole.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len

_GAP = "  "
_BELOW = "    "
_MOST_BLOCKS = 3
_WIDEST_NAME = 100
"""Columns up to which values are aligned; one long name must not move all others."""

Row = Sequence[str]


def wrapped(text: str, width: int | None, first: str = "", others: str = "") -> list[str]:
    """Break a text between words, with what stands before its first line and the others."""
    if width is None or cell_len(first + text) <= width:
        return [first + text]
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def command_lines(before: str, words: Iterable[str], width: int | None) -> list[str]:
    """Lay out a command whose words are quoted; a line that goes on ends as a shell takes it."""
    lines = [before]
    for word in words:
        if width is None or cell_len(f"{lines[-1]} {word} \\") <= width:
            lines[-1] += f" {word}"
        else:
            lines[-1] += " \\"
            lines.append(f"{_BELOW}{word}")
    return lines


def fact_lines(facts: Mapping[str, str], width: int | None) -> list[str]:
    """Lay out names and aligned values; a value too long for its place begins a line of its own."""
    aligned = min(_WIDEST_NAME, max(map(cell_len, facts), default=0))
    lines = []
    for name, value in facts.items():
        before = f"{_GAP}{_padded(name, aligned, left=True)}{_GAP}"
        room = None if width is None else width - cell_len(before)
        if room is not None and any(cell_len(word) > room for word in value.split()):
            lines.append(f"{_GAP}{name}")
            lines += wrapped(value, width, _BELOW, _BELOW)
        else:
            lines += wrapped(value, width, before, " " * cell_len(before))
    return lines


def table_lines(columns: Row, rows: Sequence[Row], width: int | None) -> list[str]:
    """Lay out a table, texts to the left and numbers to the right.

    Where it is too wide: with its headings broken, then turned by a quarter, then with the first
    cell of each row above the others, then with some columns below the others, and at last with
    each row as a text.
    """
    if width is None:
        return _grid(columns, rows, broken=False)
    ways = [_grid(columns, rows, broken) for broken in (False, True)]
    tables = [(columns, rows)]
    if len(rows) < len(columns):
        tables.insert(0, _turned(columns, rows))
        ways.append(_grid(*tables[0], broken=True))
    ways += [_two_lines(columns, rows, broken) for broken in (False, True)]
    ways += [_blocks(*table, width) for table in tables]
    fitting = (lines for lines in ways if lines and max(map(cell_len, lines)) <= width)
    return next(fitting, None) or _texts(columns, rows, width)


def _grid(columns: Row, rows: Sequence[Row], broken: bool) -> list[str]:
    cells = [*zip(columns, *rows, strict=True)]
    heads = [_broken(name, below) if broken else [name] for name, *below in cells]
    height = max(map(len, heads))
    above = zip(*([*[""] * (height - len(head)), *head] for head in heads), strict=True)
    lines = [*above, *rows]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    left = [place == 0 or _is_text(below) for place, (_, *below) in enumerate(cells)]
    return [_GAP.join(map(_padded, line, widths, left)).rstrip() for line in lines]


def _is_text(cells: Iterable[str]) -> bool:
    return any(cell[:1].isalpha() for cell in cells)


def _broken(name: str, cells: Iterable[str]) -> list[str]:
    """Break a heading between words, into lines as wide as the column has to be."""
    words = name.split()
    wide = max(map(cell_len, [*words, *cells]), default=1)
    lines: list[str] = []
    for word in words:
        joined = f"{lines[-1]} {word}" if lines else word
        lines[-1:] = [joined] if cell_len(joined) <= wide else [*lines[-1:], word]
    return lines or [""]


def _turned(columns: Row, rows: Sequence[Row]) -> tuple[Row, Sequence[Row]]:
    first, *others = zip(columns, *rows, strict=True)
    return first, [*others]


def _two_lines(columns: Row, rows: Sequence[Row], broken: bool) -> list[str]:
    beside = _grid(("", *columns[1:]), [("", *row[1:]) for row in rows], broken)
    heads = len(beside) - len(rows)
    lines = [*filter(None, columns[:1]), *beside[:heads]]
    for row, line in zip(rows, beside[heads:], strict=True):
        lines += [row[0], line]
    return lines


def _blocks(columns: Row, rows: Sequence[Row], width: int) -> list[str]:
    """Put columns below one another, each block with the first column; nothing if it takes many."""
    lines: list[str] = []
    blocks, begin = 0, 1
    while begin < len(columns):
        end, block = begin, []
        while end < len(columns):
            parts = [[row[0], *row[begin : end + 1]] for row in (columns, *rows)]
            grid = _grid(parts[0], parts[1:], broken=True)
            if max(map(cell_len, grid)) > width:
                break
            end, block = end + 1, grid
        blocks += 1
        if not block or blocks > _MOST_BLOCKS:
            return []
        lines += ["", *block] if lines else block
        begin = end
    return lines


def _texts(columns: Row, rows: Sequence[Row], width: int) -> list[str]:
    lines = []
    for row in rows:
        lines += wrapped(row[0], width, "", _GAP)
        told = [f"{name} {cell}" for name, cell in zip(columns[1:], row[1:], strict=True) if cell]
        lines += _together(told, width)
    return lines


def _together(texts: Iterable[str], width: int) -> list[str]:
    """Put texts on lines, as many as fit; one that is too long for a line is broken."""
    lines: list[str] = []
    for text in texts:
        if lines and cell_len(f"{lines[-1]}; {text}") <= width:
            lines[-1] += f"; {text}"
        else:
            lines += wrapped(text, width, _GAP, _BELOW)
    return lines


def _padded(text: str, width: int, left: bool) -> str:
    space = " " * (width - cell_len(text))
    return text + space if left else space + text
