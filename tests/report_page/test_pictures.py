"""Pictures hold the numbers that they are given, exactly, in places that follow from them."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from markupsafe import Markup
from picture_samples import HOSTILE, MODULES, caption, every_picture, layers

from patchc.evaluation.rates import Rate
from patchc.report_page.pictures import (
    Caption,
    IntervalRow,
    Line,
    LinePoint,
    heat_map,
    intervals,
    lines,
    matrix,
    plane,
)

NOT_NUMBERS = [math.nan, math.inf, -math.inf]
EXTREMES = [*NOT_NUMBERS, 0.0, -0.0, 5e-324, -1e308, 1e308, 1e-300]


def parsed(svg: Markup) -> ElementTree.Element:
    """Read a picture as XML, which is stricter than HTML."""
    return ElementTree.fromstring(str(svg))


def marks(svg: Markup) -> Iterator[ElementTree.Element]:
    return (one for one in parsed(svg).iter() if "data-value" in one.attrib)


def values(svg: Markup) -> list[str]:
    return [one.attrib["data-value"] for one in marks(svg)]


def words(svg: Markup) -> list[str]:
    return [one.text or "" for one in parsed(svg).iter("text")]


def curve(*points: LinePoint, name: str = "a") -> Markup:
    return lines(caption("p"), series=[Line(name, points)], x_label="x", y_label="y")


def test_every_picture_has_a_name_a_description_and_its_own_ids() -> None:
    pictures = every_picture()
    for svg in pictures:
        root = parsed(svg)
        ids = [one.attrib["id"] for one in root.iter() if "id" in one.attrib]
        named = [
            next(e for e in root if e.get("id") == i)
            for i in root.attrib["aria-labelledby"].split()
        ]
        assert [(one.tag, one.text) for one in named] == [
            ("title", "a name"),
            ("desc", "What is seen: a name."),
        ]
        assert root.attrib["role"] == "img"
        assert len(set(ids)) == len(ids)
        assert len({one.split("-")[0] for one in ids}) == 1
    assert pictures == every_picture()


def test_texts_from_outside_stay_texts() -> None:
    plain, hostile = every_picture(), every_picture(HOSTILE)
    for one, other in zip(plain, hostile, strict=True):
        tags = {element.tag for element in parsed(other).iter()}
        assert tags <= {element.tag for element in parsed(one).iter()} | {"title"}
        assert not {"script", "b", "style", "image", "a"} & tags
        allowed = {key for element in parsed(one).iter() for key in element.attrib}
        assert {key for element in parsed(other).iter() for key in element.attrib} <= allowed
        assert not any(hidden in other for hidden in ("\x1b", "\u202e", "\x00", "\ud800"))
        assert "://" not in other


@pytest.mark.parametrize("prefix", ["", "A", "1a", "a b", 'a"', "a\n"])
def test_a_prefix_is_plain(prefix: str) -> None:
    with pytest.raises(ValueError, match="id"):
        Caption(prefix, "title", "description")


def test_heat_map_has_each_value_and_darker_is_more() -> None:
    given = [[0.0, 0.1, 0.2], [0.30000000000000004, None, math.inf]]
    svg = heat_map(
        caption("p"), rows=["0", "1"], columns=["a", "b", "c"], values=given, legend="share"
    )
    assert values(svg) == ["0.0", "0.1", "0.2", "0.30000000000000004", "inf"]
    shades = [int(one.attrib["fill"][1:3], 16) for one in list(marks(svg))[:4]]
    assert shades == sorted(shades, reverse=True)
    assert len(set(shades)) == 4
    assert {"0.1", "-", "∞", "a", "1", "share"} <= set(words(svg))


def test_cells_below_the_centre_are_told_apart_without_colour() -> None:
    given = layers(128, 1.0)
    svg = heat_map(
        caption("p"),
        rows=[str(i) for i in range(128)],
        columns=MODULES,
        values=given,
        legend="scale",
        centre=1.0,
    )
    below = sum(one is not None and one < 1 for row in given for one in row)
    (across,) = (one for one in parsed(svg).iter("path") if one.get("fill") == "url(#p-below)")
    assert across.attrib["d"].count("M") == below
    assert "lines across: below 1" in words(svg)
    assert values(svg) == [repr(one) for row in given for one in row if one is not None]


def test_matrix_writes_percent() -> None:
    svg = matrix(
        caption("p"),
        rows=["base", "a.patchc"],
        columns=["poison", "love"],
        values=[[0.125, 1.0], [0.0, 0.0004]],
        legend="answered",
    )
    assert {"12.5", "100.0", "0.0", "0.04", "poison", "a.patchc"} <= set(words(svg))
    assert values(svg) == ["0.125", "1.0", "0.0", "0.0004"]


def test_intervals_lie_at_their_values() -> None:
    rates = Rate(8, 64), Rate(32, 64), Rate(64, 64)
    svg = intervals(
        caption("p"),
        rows=[IntervalRow(str(one.hits), (one, None), (f"{one.hits} of 64",)) for one in rates],
    )
    drawn = list(marks(svg))
    assert [
        (m.attrib["data-low"], m.attrib["data-value"], m.attrib["data-high"]) for m in drawn
    ] == [(repr(one.low), repr(one.value), repr(one.high)) for one in rates]
    first, second, last = (float(one.attrib["cx"]) for one in drawn)
    assert (second - first) / (last - first) == pytest.approx((0.5 - 0.125) / 0.875, abs=1e-3)
    assert {"12.5 %, 8 of 64", "no value", "base", "patched"} <= set(words(svg))


def test_lines_rise_with_their_values_and_break_where_there_is_none() -> None:
    points = [LinePoint(x, y) for x, y in ((2.0, 3.0), (0.0, 1.0), (1.0, 2.0), (3.0, math.nan))]
    svg = curve(*points, LinePoint(4.0, 5.0), LinePoint(math.inf, 1.0))
    drawn = [(one.attrib["data-x"], one.attrib["data-value"]) for one in marks(svg)]
    assert drawn == [("0.0", "1.0"), ("1.0", "2.0"), ("2.0", "3.0"), ("4.0", "5.0")]
    places = [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in marks(svg)]
    steps = [b[0] - a[0] for a, b in pairwise(places)]
    assert steps == pytest.approx([steps[0], steps[0], 2 * steps[0]], abs=0.02)
    assert [b[1] < a[1] for a, b in pairwise(places)] == [True] * 3
    course = max((one.attrib["d"] for one in parsed(svg).iter("path")), key=len)
    assert course.count("M") == 2


def test_long_lines_keep_every_value() -> None:
    points = [LinePoint(float(i), 1 / (i + 1)) for i in range(500)]
    assert values(curve(*points)) == [repr(one.y) for one in points]


def test_a_line_between_signs_lies_at_zero() -> None:
    alphas = [-1.0, 0.0, 1.0]
    svg = plane(
        caption("p"),
        alphas=alphas,
        values=[[x + 0.5 for x in alphas] for _ in alphas],
        x_label="x",
        y_label="y",
        legend="margin",
    )
    cells = list(marks(svg))
    rows = [cells[i : i + 3] for i in (0, 3, 6)]
    assert [float(row[0].attrib["y"]) for row in rows] == [220.0, 120.0, 20.0]
    left = float(cells[0].attrib["x"])
    (dark,) = (one for one in parsed(svg).iter("path") if one.get("stroke-width") == "2")
    # Halfway between the middles of the first column and of the second.
    assert {place.split()[0] for place in dark.attrib["d"].replace("L", "M").split("M")[1:]} == {
        f"{left + 100:g}"
    }


@pytest.mark.parametrize("value", EXTREMES)
@pytest.mark.parametrize(
    "draw",
    [
        lambda one: curve(LinePoint(one, 1.0), LinePoint(1.0, one, one, one)),
        lambda one: curve(LinePoint(0.0, 1.0), LinePoint(1.0, 1.0, one, 2.0)),
        lambda one: heat_map(
            caption("p"), rows=["0", "1"], columns=["a"], values=[[one], [1.0]], legend="x"
        ),
        lambda one: heat_map(
            caption("p"), rows=["0"], columns=["a"], values=[[one]], legend="x", centre=1.0
        ),
        lambda one: intervals(
            caption("p"), rows=[IntervalRow("a", (Exactly(one),))], numbers="plain"
        ),
        lambda one: plane(
            caption("p"),
            alphas=[one, 1.0],
            values=[[one, 1.0], [-1.0, one]],
            x_label="x",
            y_label="y",
            legend="z",
        ),
    ],
    ids=["line", "band", "cells", "scales", "interval", "plane"],
)
def test_no_value_breaks_a_picture(draw: Callable[[float], Markup], value: float) -> None:
    for one in parsed(draw(value)).iter():
        for key in ("x", "y", "cx", "cy", "d", "width", "height", "transform", "viewBox"):
            written = one.attrib.get(key, "")
            assert not any(bad in written for bad in ("nan", "inf", "e+")), written


class Exactly:
    """An interval of one number."""

    def __init__(self, value: float) -> None:
        self.value = self.low = self.high = value


def test_without_values_a_picture_says_so() -> None:
    empty = [
        heat_map(caption("p"), rows=[], columns=[], values=[], legend="x"),
        intervals(caption("p"), rows=[]),
        lines(caption("p"), series=[], x_label="x", y_label="y"),
        curve(),
        curve(LinePoint(math.nan, 1.0)),
        plane(caption("p"), alphas=[], values=[], x_label="x", y_label="y", legend="z"),
        matrix(caption("p"), rows=["a"], columns=[], values=[[]], legend="x"),
    ]
    assert [words(one) for one in empty] == [["no values"]] * len(empty)


def test_a_plane_is_square() -> None:
    with pytest.raises(ValueError, match="2 coordinates"):
        plane(caption("p"), alphas=[0.0, 1.0], values=[[1.0]], x_label="x", y_label="y", legend="z")
