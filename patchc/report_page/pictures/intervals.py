"""Values with their intervals, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from patchc.report_page.pictures.axis import Axis, axis_for
from patchc.report_page.pictures.numerals import can_be_drawn, drawable, whole, written
from patchc.report_page.pictures.styles import Style, legend, style
from patchc.report_page.pictures.svg import (
    SMALL,
    TEXT,
    WIDTH,
    empty_picture,
    group,
    line,
    picture,
    tag,
    text,
    width_of,
)
from patchc.report_page.pictures.values import Caption, IntervalRow, Numbers, WithInterval

_LEFT = 12.0
_NAME, _MARK, _SPACE = 15.0, 14.0, 8.0
"""Heights of a row's name, of each of its values, and between rows."""


def intervals(
    caption: Caption,
    *,
    rows: Sequence[IntervalRow],
    series: Sequence[str] = ("base", "patched"),
    numbers: Numbers = "percent",
) -> Markup:
    """Draw for each row a mark and an interval for each series, on one axis.

    With ``percent`` the axis goes from 0 to 100.

    Args:
        series: names of the values of each row, up to 6.
    """
    if not rows:
        return empty_picture(caption)
    given = [one for row in rows for one in row.values if one is not None]
    limits = drawable(limit for one in given for limit in (one.value, one.low, one.high))
    said = [_said(row, number, numbers) for row in rows for number in range(len(row.values))]
    right = min(WIDTH / 2, max((width_of(one, SMALL) for one in said), default=0.0))
    range_given = (0.0, 1.0) if numbers == "percent" else ()
    axis = axis_for([*limits, *range_given], _LEFT, WIDTH - right - 14)
    named, y = legend(series, 0)
    drawn, places = [], [axis.at(tick) for tick in axis.ticks]
    for row in rows:
        y += _NAME
        drawn.append(text(row.name, 0, y, font_weight="bold"))
        end = y + 4 + _MARK * len(row.values)
        drawn += [line(x, y + 4, x, end, stroke_opacity=0.2) for x in places]
        for number in range(len(row.values)):
            y += _MARK
            drawn.append(_value(row, number, axis, y, numbers))
        y += _SPACE
    return picture(caption, y + TEXT + 2, named, *drawn, _numbers(axis, y, numbers))


def _said(row: IntervalRow, number: int, numbers: Numbers) -> str:
    """What stands beside a value."""
    one = row.values[number]
    value = "no value" if one is None else written(one.value, numbers)
    notes = [note for note in row.notes[number : number + 1] if note]
    return ", ".join([value, *notes])


def _value(row: IntervalRow, number: int, axis: Axis, y: float, numbers: Numbers) -> Markup:
    one, middle = row.values[number], y - SMALL / 3
    beside = axis.end + 12
    words = text(_said(row, number, numbers), beside, y, WIDTH - beside, SMALL)
    return group(words, *([] if one is None else _mark(one, style(number), axis, middle)))


def _mark(one: WithInterval, look: Style, axis: Axis, y: float) -> list[Markup]:
    marks = []
    exact = {"data_low": repr(one.low), "data_high": repr(one.high)}
    if can_be_drawn(one.low) and can_be_drawn(one.high):
        low, high = axis.at(one.low), axis.at(one.high)
        marks.append(look.stroke(f"M{low:.2f} {y:.2f}H{high:.2f}"))
        ends = f"M{low:.2f} {y - 3:.2f}v6M{high:.2f} {y - 3:.2f}v6"
        marks.append(tag("path", d=ends, stroke=look.colour, stroke_width=1.5))
    if can_be_drawn(one.value):
        marks.append(look.marker(axis.at(one.value), y, data_value=repr(one.value), **exact))
    return marks


def _numbers(axis: Axis, y: float, numbers: Numbers) -> Markup:
    """The numbers below the axis, the last with its unit."""
    marks = []
    for tick in axis.ticks:
        unit = " %" if numbers == "percent" and tick == axis.ticks[-1] else ""
        words = whole(tick, numbers) + unit
        marks.append(text(words, axis.at(tick), y + SMALL, size=SMALL, text_anchor="middle"))
    return group(*marks)
