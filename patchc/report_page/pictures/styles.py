"""How series differ, with and without colour: markers, dashes, and a legend of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from patchc.report_page.pictures.svg import (
    SMALL,
    TEXT,
    WIDTH,
    Attributes,
    group,
    tag,
    text,
    width_of,
)

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b8609a", "#8a6d00", "#7a7a7a")
"""The first four after Okabe and Ito: told apart by the colour-blind; seen on white and black."""

_DASHES = (None, "6 3", "2 2", "9 3 2 3", "1 3", "12 4")
_SHAPES = ("circle", "square", "triangle", "diamond", "cross", "wedge")
_OUTLINES = {
    "square": "M-3 -3H3V3H-3Z",
    "triangle": "M0 -4L4 3H-4Z",
    "diamond": "M0 -4.5L4.5 0L0 4.5L-4.5 0Z",
    "cross": "M-3 -3L3 3M-3 3L3 -3",
    "wedge": "M0 4L4 -3H-4Z",
}
_HOLLOW = ("circle", "triangle", "cross")
_SAMPLE, _GAP, _ROW = 26.0, 14.0, 17.0


@dataclass(frozen=True)
class Style:
    """How one series is drawn."""

    colour: str
    dashes: str | None
    shape: str

    def stroke(self, path: str, **more: str | float) -> Markup:
        """Draw a path as this series' lines are."""
        return tag(
            "path",
            d=path,
            stroke=self.colour,
            stroke_width=1.5,
            stroke_dasharray=self.dashes,
            fill="none",
            **more,
        )

    def marker(self, x: float, y: float, *inside: str, **more: str | float) -> Markup:
        """Draw this series' marker."""
        paint: Attributes = {
            "stroke": self.colour,
            "stroke_width": 1.5,
            "fill": "none" if self.shape in _HOLLOW else self.colour,
            **more,
        }
        if self.shape == "circle":
            return tag("circle", *inside, cx=x, cy=y, r=3.5, **paint)
        moved = tag("path", *inside, d=_OUTLINES[self.shape], **paint)
        return group(moved, transform=f"translate({x:.2f} {y:.2f})")

    def dot(self, x: float, y: float, *inside: str, **more: str | float) -> Markup:
        """Draw a point between markers."""
        return tag("circle", *inside, cx=x, cy=y, r=0.75, fill=self.colour, **more)


def style(number: int) -> Style:
    """Return the style of a series; the first six share nothing."""
    count = len(_COLOURS)
    shape = _SHAPES[(number + number // count) % count]
    return Style(_COLOURS[number % count], _DASHES[number % count], shape)


def legend(names: Sequence[str], top: float) -> tuple[Markup, float]:
    """Name the series, in rows.

    Returns:
        It, and its height.
    """
    x, y, entries = 0.0, top + TEXT, []
    for number, name in enumerate(names):
        most = WIDTH - _SAMPLE
        width = _SAMPLE + min(width_of(name, TEXT), most)
        if x and x + width > WIDTH:
            x, y = 0.0, y + _ROW
        shape, middle = style(number), y - SMALL / 3
        entries += [
            shape.stroke(f"M{x:.2f} {middle:.2f}h20"),
            shape.marker(x + 10, middle),
            text(name, x + _SAMPLE, y, most),
        ]
        x += width + _GAP
    return group(*entries), (y - top + 6 if names else 0.0)
