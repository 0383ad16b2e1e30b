"""Lines over one axis, with bands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from markupsafe import Markup

from patchc.report_page.pictures.axis import Axis, axis_for
from patchc.report_page.pictures.numerals import can_be_drawn, drawable, whole, written
from patchc.report_page.pictures.styles import Style, legend, style
from patchc.report_page.pictures.svg import (
    SMALL,
    TEXT,
    WIDTH,
    Attributes,
    empty_picture,
    group,
    line,
    path,
    picture,
    tag,
    text,
    tooltip,
    width_of,
)
from patchc.report_page.pictures.values import Caption, Line, LinePoint, Numbers, Reference

_PLOT, _RIGHT = 190.0, 8.0
_MARKED = 30
"""A line of more points has a marker at some of them and dots at the others."""
_MARKERS = 12
_FEW, _SHADE, _LIGHT_SHADE = 3, 0.15, 0.06
"""Bands of more lines are lighter, as many lie over each other."""


def lines(
    caption: Caption,
    *,
    series: Sequence[Line],
    x_label: str,
    y_label: str,
    numbers: Numbers = "plain",
    references: Sequence[Reference] = (),
    levels: str = "",
) -> Markup:
    """Draw up to 6 lines, each with its own dashes and markers, and a legend.

    Args:
        series: the lines. With ``percent`` their y axis goes from 0 to 100.
        x_label, y_label: what the axes are.
        references: places on the x axis that are marked and named.
        levels: what the lines' levels are, if they have some, such as "base".
    """
    drawn = [_drawn(one) for one in series]
    points = [one for each in drawn for one in each]
    across = drawable(one.level for one in series)
    if not (points or across):
        return empty_picture(caption)
    heights = drawable(value for one in points for value in (one.y, one.low, one.high))
    heights += across
    named, legend_height = legend([one.name for one in series], 0)
    shown = [one for one in references if can_be_drawn(one.x)]
    top = legend_height + TEXT + (TEXT if shown else 0) + 12
    bottom = top + _PLOT
    y_axis = axis_for([*heights, *((0.0, 1.0) if numbers == "percent" else ())], bottom, top)
    left = 6 + max(width_of(whole(tick, numbers), SMALL) for tick in y_axis.ticks)
    places = [one.x for one in points] + [one.x for one in shown]
    x_axis = axis_for(places, left + 4, WIDTH - _RIGHT, round_ends=False)
    shade = _SHADE if len(drawn) <= _FEW else _LIGHT_SHADE
    unit = " (%)" if numbers == "percent" else ""
    told = f"; thin, across: {levels}" if across else ""
    return picture(
        caption,
        bottom + 2 * TEXT + 12,
        named,
        text(y_label + unit + told, 0, legend_height + TEXT),
        _grid(x_axis, y_axis, left, numbers),
        text(x_label, (left + WIDTH) / 2, bottom + 2 * TEXT + 6, text_anchor="middle"),
        *(_reference(one, x_axis, top, bottom) for one in shown),
        *(_band(each, style(i), x_axis, y_axis, shade) for i, each in enumerate(drawn)),
        *(_level(one, style(i), left, y_axis, numbers) for i, one in enumerate(series)),
        *(_line(one, style(i), x_axis, y_axis, numbers) for i, one in enumerate(series)),
    )


def _drawn(one: Line) -> list[LinePoint]:
    """The points that have a place, by rising x."""
    return [point for point in _in_order(one) if can_be_drawn(point.y)]


def _in_order(one: Line) -> list[LinePoint]:
    return sorted((point for point in one.points if can_be_drawn(point.x)), key=lambda at: at.x)


def _grid(x_axis: Axis, y_axis: Axis, left: float, numbers: Numbers) -> Markup:
    top, bottom = y_axis.end, y_axis.start
    marks = [line(left, bottom, WIDTH, bottom)]
    for tick in y_axis.ticks:
        y = y_axis.at(tick)
        marks.append(line(left, y, WIDTH, y, stroke_opacity=0.2))
        words = whole(tick, numbers)
        marks.append(text(words, left - 4, y + SMALL / 3, size=SMALL, text_anchor="end"))
    for tick in x_axis.ticks:
        x = x_axis.at(tick)
        words = whole(tick, "plain")
        marks.append(line(x, bottom, x, bottom + 4))
        # A number at the end of the axis stays inside the picture.
        middle = min(x, WIDTH - width_of(words, SMALL) / 2)
        marks.append(text(words, middle, bottom + 15, size=SMALL, text_anchor="middle"))
        marks.append(line(x, top, x, bottom, stroke_opacity=0.1))
    return group(*marks)


def _reference(one: Reference, axis: Axis, top: float, bottom: float) -> Markup:
    x = axis.at(one.x)
    half = width_of(one.name, SMALL) / 2
    middle = max(half, min(x, WIDTH - half))
    return group(
        line(x, top - 3, x, bottom, stroke_dasharray="1 2", data_value=repr(one.x)),
        text(one.name, middle, top - 6, WIDTH, SMALL, text_anchor="middle"),
    )


def _level(one: Line, look: Style, left: float, axis: Axis, numbers: Numbers) -> Markup:
    """A thin line across, with the series' marker at its end."""
    if one.level is None or not can_be_drawn(one.level):
        return Markup()
    y = axis.at(one.level)
    hint = tooltip(f"{one.name}: {written(one.level, numbers)}")
    across = path((left, y), (WIDTH - _RIGHT, y))
    return group(
        tag("path", d=across, stroke=look.colour, stroke_width=0.75, stroke_dasharray=look.dashes),
        look.marker(WIDTH - _RIGHT / 2, y, hint, data_value=repr(one.level)),
    )


def _runs(points: Iterable[LinePoint], *fields: str) -> list[list[LinePoint]]:
    """Points that follow each other, all of which have such fields that can be drawn."""
    found = groupby(points, lambda one: all(can_be_drawn(getattr(one, name)) for name in fields))
    return [list(run) for good, run in found if good]


def _band(
    points: Sequence[LinePoint], look: Style, x_axis: Axis, y_axis: Axis, shade: float
) -> Markup:
    shapes = []
    for run in _runs(points, "low", "high"):
        there = [(x_axis.at(one.x), y_axis.at(one.high)) for one in run if one.high is not None]
        back = [(x_axis.at(one.x), y_axis.at(one.low)) for one in run if one.low is not None]
        shapes.append(path(*there, *reversed(back)) + "Z")
    if not shapes:
        return Markup()
    edge: Attributes = {"stroke": look.colour, "stroke_opacity": 0.4, "stroke_width": 0.5}
    return tag("path", d="".join(shapes), fill=look.colour, fill_opacity=shade, **edge)


def _line(one: Line, look: Style, x_axis: Axis, y_axis: Axis, numbers: Numbers) -> Markup:
    points = _in_order(one)
    runs = _runs(points, "y")
    course = "".join(path(*((x_axis.at(at.x), y_axis.at(at.y)) for at in run)) for run in runs)
    shown = [at for run in runs for at in run]
    every = 1 if len(shown) <= _MARKED else -(-len(shown) // _MARKERS)
    marks = [
        (look.dot if number % every else look.marker)(
            x_axis.at(at.x),
            y_axis.at(at.y),
            tooltip(f"{one.name}: {written(at.y, numbers)} at {written(at.x, 'plain')}"),
            data_x=repr(at.x),
            data_value=repr(at.y),
            **_limits(at),
        )
        for number, at in enumerate(shown)
    ]
    return group(*([look.stroke(course)] if course else []), *marks)


def _limits(point: LinePoint) -> dict[str, str]:
    limits = (("data_low", point.low), ("data_high", point.high))
    return {name: repr(value) for name, value in limits if value is not None}
