"""Grids of shaded cells: what changed where, and what happened after each turn."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from patchc.report_page.pictures.numerals import brief, can_be_drawn, written
from patchc.report_page.pictures.shade_legend import Box, hatching, shade_legend
from patchc.report_page.pictures.shades import Shades, fill, ink, shades_for
from patchc.report_page.pictures.svg import (
    SMALL,
    TEXT,
    WIDTH,
    Attributes,
    empty_picture,
    group,
    line,
    picture,
    tag,
    text,
    tooltip,
    width_of,
)
from patchc.report_page.pictures.values import Caption, Numbers

_WRITTEN_ROWS = 48
"""More rows are low, so that a page has room for them, and have no numbers in their cells."""
_HEIGHT, _LOW_HEIGHT, _HIGH_HEIGHT = 14.0, 6.0, 22.0
_LONGEST_NAME, _WIDEST_CELL, _NARROWEST_CELL = 110.0, 64.0, 12.0
_IN_CELL = 10.0
_LAYER = re.compile(r"[0-9]{1,9}")
_ROUND = (1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class _Grid:
    """Cells with their names and numbers, and where they are."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    numbers: Numbers
    left: float
    top: float
    width: float
    height: float

    @cached_property
    def has_numbers(self) -> bool:
        return self.height >= _HEIGHT and all(
            width_of(self.number(one), _IN_CELL) <= self.width - 2
            for row in self.values
            for one in row
        )

    def number(self, value: float | None) -> str:
        return "-" if value is None else brief(value, self.numbers)

    def box(self, row: int, column: int) -> Box:
        x, y = self.left + column * self.width, self.top + row * self.height
        return x, y, self.width, self.height


def heat_map(
    caption: Caption,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    legend: str,
    numbers: Numbers = "plain",
    centre: float | None = None,
) -> Markup:
    """Draw a map of up to some 128 rows (layers) and 12 columns (modules).

    Args:
        rows, columns: names of the rows, from the top, and of the columns.
        values: for each row, one for each column; None where there is none.
        legend: what a value is, with its unit.
        centre: the value in the middle of a scale with two ends, such as 1 for scales; without it
            the scale has one end and begins at the smallest value, or at 0.
    """
    height = _HEIGHT if len(rows) <= _WRITTEN_ROWS else _LOW_HEIGHT
    shades = shades_for([one for row in values for one in row], centre)
    return _draw(caption, rows, columns, values, legend, numbers, shades, height)


def matrix(
    caption: Caption,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    legend: str,
    numbers: Numbers = "percent",
) -> Markup:
    """Draw few cells with their numbers, such as turns by categories.

    Args:
        rows, columns: names of the rows, from the top, and of the columns.
        values: for each row, one for each column; None where there is none.
        legend: what a value is. With ``percent`` the shades go from 0 to 100.
    """
    least = (0.0, 1.0) if numbers == "percent" else ()
    shades = shades_for([one for row in values for one in row], None, least)
    return _draw(caption, rows, columns, values, legend, numbers, shades, _HIGH_HEIGHT)


def _draw(
    caption: Caption,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    words: str,
    numbers: Numbers,
    shades: Shades,
    height: float,
) -> Markup:
    if not rows or not columns:
        return empty_picture(caption)
    left = 6 + min(_LONGEST_NAME, max(width_of(one, SMALL) for one in rows))
    width = max(_NARROWEST_CELL, min(_WIDEST_CELL, (WIDTH - left) / len(columns)))
    top = 8 + min(_LONGEST_NAME, max(width_of(one, SMALL) for one in columns))
    if all(width_of(one, SMALL) <= width - 4 for one in columns):
        top = TEXT + 6
    grid = _Grid(rows, columns, values, numbers, left, top, width, height)
    cells, below, empty = [], [], False
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            cells.append(_cell(grid, shades, i, j, value))
            empty = empty or not can_be_drawn(value)
            if value is not None and can_be_drawn(value) and shades.is_below(value):
                below.append(grid.box(i, j))
    hatched = None if grid.has_numbers or not below else f"{caption.prefix}-below"
    notes = ["dash: no value"] if empty and not grid.has_numbers else []
    end = top + len(rows) * height + 8
    explained, explained_height = shade_legend(
        shades, words, numbers, end, hatched=hatched and f"{hatched}-legend", notes=notes
    )
    return picture(
        caption,
        end + explained_height,
        _names(grid),
        group(*cells, font_size=_IN_CELL, text_anchor="middle"),
        hatching(hatched, below) if hatched else "",
        explained,
        width=max(WIDTH, left + width * len(columns)),
    )


def _cell(grid: _Grid, shades: Shades, i: int, j: int, value: float | None) -> Markup:
    x, y, width, height = grid.box(i, j)
    said = "no value" if value is None else written(value, grid.numbers)
    hint = tooltip(f"{grid.rows[i]}, {grid.columns[j]}: {said}")
    place = {"x": x, "y": y, "width": width, "height": height}
    exact = None if value is None else repr(value)
    if value is not None and can_be_drawn(value):
        colour = shades.colour(value)
        box = tag("rect", hint, **place, fill=fill(colour), data_value=exact)
        paint = ink(colour)
    else:
        outline: Attributes = {"stroke": "currentColor", "stroke_opacity": 0.25}
        box = tag("rect", hint, **place, fill="none", data_value=exact, **outline)
        paint = "currentColor"
    if grid.has_numbers:
        middle = {"x": x + width / 2, "y": y + height / 2 + _IN_CELL / 3}
        return box + tag("text", grid.number(value), **middle, fill=paint, pointer_events="none")
    if paint == "currentColor":
        return box + line(x + width / 3, y + height / 2, x + width * 2 / 3, y + height / 2)
    return box


def _names(grid: _Grid) -> Markup:
    marks = []
    for i in _with_room(grid.rows, grid.height):
        y = grid.top + (i + 0.5) * grid.height + SMALL / 3
        marks.append(text(grid.rows[i], grid.left - 4, y, _LONGEST_NAME, SMALL, text_anchor="end"))
    upright = grid.top < 2 * TEXT
    for j in _with_room(grid.columns, grid.width):
        x, y = grid.left + (j + 0.5) * grid.width, grid.top - 5
        if upright:
            marks.append(text(grid.columns[j], x, y, WIDTH, SMALL, text_anchor="middle"))
        else:
            turn = f"rotate(-90 {x + SMALL / 3:.2f} {y:.2f})"
            marks.append(
                text(grid.columns[j], x + SMALL / 3, y, _LONGEST_NAME, SMALL, transform=turn)
            )
    return group(*marks)


def _with_room(names: Sequence[str], step: float) -> list[int]:
    """The names that have room: words before numbers, and only round ones of many numbers."""
    every = next((one for one in _ROUND if one * step >= SMALL), _ROUND[-1])
    near = math.ceil(SMALL / step) - 1
    layers = {i: int(name) for i, name in enumerate(names) if _LAYER.fullmatch(name)}
    order = [i for i in range(len(names)) if i not in layers]
    order += [i for i, layer in layers.items() if layer % every == 0]
    chosen: dict[int, None] = {}
    for i in order:
        if not any(other in chosen for other in range(i - near, i + near + 1)):
            chosen[i] = None
    return list(chosen)
