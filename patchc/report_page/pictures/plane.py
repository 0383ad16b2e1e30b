"""A grid of values over two coordinates, with the line where they are 0."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from patchc.report_page.pictures.numerals import can_be_drawn, whole, written
from patchc.report_page.pictures.shade_legend import hatching, shade_legend
from patchc.report_page.pictures.shades import Shades, fill, shades_for
from patchc.report_page.pictures.svg import (
    SMALL,
    TEXT,
    WIDTH,
    Attributes,
    empty_picture,
    group,
    path,
    picture,
    tag,
    text,
    tooltip,
    width_of,
)
from patchc.report_page.pictures.values import Caption

_SIDE = 300.0
_TOP = TEXT + 8


def plane(
    caption: Caption,
    *,
    alphas: Sequence[float],
    values: Sequence[Sequence[float]],
    x_label: str,
    y_label: str,
    legend: str,
) -> Markup:
    """Draw values on a square grid, with a line between those above 0 and those below.

    Args:
        alphas: the coordinates of the columns, and of the rows; rising.
        values: for each row, one for each column; the first row is at the bottom.
        x_label, y_label: what the coordinates are.
        legend: what a value is.

    Raises:
        ValueError: there are not as many rows and columns as coordinates.
    """
    count = len(alphas)
    if {len(values), *map(len, values)} - {count}:
        raise ValueError(f"{count} coordinates, {len(values)} rows")
    if not count:
        return empty_picture(caption)
    shades = shades_for([one for row in values for one in row], 0.0)
    left = 6 + max(width_of(whole(one, "plain"), SMALL) for one in alphas)
    place = _Place(left, _TOP + _SIDE, _SIDE / count)
    end = _TOP + _SIDE + 2 * TEXT + 14
    notes = ["line: 0", *(["ring: the model itself"] if 0 in alphas else [])]
    below = f"{caption.prefix}-below"
    explained, explained_height = shade_legend(
        shades, legend, "plain", end, hatched=f"{below}-legend", notes=[", ".join(notes)]
    )
    cells = [
        _cell(alphas, place, shades, i, j, value)
        for i, row in enumerate(values)
        for j, value in enumerate(row)
    ]
    hatched = [
        (*place.corner(i, j), place.step, place.step)
        for i, row in enumerate(values)
        for j, value in enumerate(row)
        if can_be_drawn(value) and shades.is_below(value)
    ]
    return picture(
        caption,
        end + explained_height,
        text(y_label, 0, TEXT),
        group(*cells),
        hatching(below, hatched),
        _zero_line(values, place),
        _origin(alphas, place),
        _axes(alphas, place),
        text(x_label, left + _SIDE / 2, end - 6, WIDTH, text_anchor="middle"),
        explained,
    )


class _Place:
    """Where the cells are."""

    def __init__(self, left: float, bottom: float, step: float) -> None:
        self.left, self.bottom, self.step = left, bottom, step

    def corner(self, row: int, column: int) -> tuple[float, float]:
        """The top left of a cell."""
        return self.left + column * self.step, self.bottom - (row + 1) * self.step

    def middle(self, row: float, column: float) -> tuple[float, float]:
        """The middle of a cell, or a place between such middles."""
        return self.left + (column + 0.5) * self.step, self.bottom - (row + 0.5) * self.step


def _cell(
    alphas: Sequence[float], place: _Place, shades: Shades, i: int, j: int, value: float
) -> Markup:
    x, y = place.corner(i, j)
    at = f"{written(alphas[j], 'plain')}, {written(alphas[i], 'plain')}"
    paint = fill(shades.colour(value)) if can_be_drawn(value) else "none"
    return tag(
        "rect",
        tooltip(f"{at}: {written(value, 'plain')}"),
        x=x,
        y=y,
        width=place.step,
        height=place.step,
        fill=paint,
        data_x=repr(alphas[j]),
        data_y=repr(alphas[i]),
        data_value=repr(value),
    )


def _zero_line(values: Sequence[Sequence[float]], place: _Place) -> Markup:
    """The line where values between the cells' middles are 0 (marching squares)."""
    pieces = []
    for i in range(len(values) - 1):
        for j in range(len(values) - 1):
            corners = [(i, j), (i, j + 1), (i + 1, j + 1), (i + 1, j)]
            if not all(can_be_drawn(values[row][column]) for row, column in corners):
                continue
            crossings = [
                crossing
                for a, b in zip(corners, [*corners[1:], corners[0]], strict=True)
                if (crossing := _crossing(values, a, b)) is not None
            ]
            for start, end in zip(crossings[::2], crossings[1::2], strict=True):
                pieces.append(path(place.middle(*start), place.middle(*end)))
    if not pieces:
        return Markup()
    course = "".join(pieces)
    # Light around dark, so that it is seen on every shade.
    return group(
        tag("path", d=course, stroke="#fff", stroke_width=4.5),
        tag("path", d=course, stroke="#000", stroke_width=2),
        fill="none",
        stroke_linecap="round",
    )


def _crossing(
    values: Sequence[Sequence[float]], a: tuple[int, int], b: tuple[int, int]
) -> tuple[float, float] | None:
    """Where values change sides between two middles, if they do; 0 is not below."""
    here, there = values[a[0]][a[1]], values[b[0]][b[1]]
    if (here < 0) == (there < 0):
        return None
    share = here / (here - there)
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])


def _origin(alphas: Sequence[float], place: _Place) -> Markup:
    if 0 not in alphas:
        return Markup()
    number = list(alphas).index(0)
    x, y = place.middle(number, number)
    ring: Attributes = {"cx": x, "cy": y, "r": 5.0, "fill": "none"}
    return group(
        tag("circle", **ring, stroke="#fff", stroke_width=4),
        tag("circle", **ring, stroke="#000", stroke_width=1.5),
    )


def _axes(alphas: Sequence[float], place: _Place) -> Markup:
    widest = max(width_of(whole(one, "plain"), SMALL) for one in alphas) + 4
    every = -(-widest // place.step)
    first = list(alphas).index(0) % every if 0 in alphas else 0
    marks = []
    for number, alpha in enumerate(alphas):
        if number % every != first:
            continue
        words = whole(alpha, "plain")
        x, y = place.middle(number, number)
        marks += [
            text(words, place.left - 4, y + SMALL / 3, size=SMALL, text_anchor="end"),
            text(words, x, place.bottom + 14, size=SMALL, text_anchor="middle"),
        ]
    return group(*marks)
