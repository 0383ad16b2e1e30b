"""Lines across shaded cells, and a legend that says what shades and lines mean."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from markupsafe import Markup

from patchc.escaping import shown
from patchc.report_page.pictures.numerals import written
from patchc.report_page.pictures.shades import Shades, fill
from patchc.report_page.pictures.svg import SMALL, TEXT, WIDTH, coordinate, group, path, tag, text
from patchc.report_page.pictures.values import Numbers

Box = tuple[float, float, float, float]
"""Left, top, width and height."""

_LINE, _LONGEST = 50, 200
"""Characters of a line, and of a text."""
_STEPS = 10
_SWATCH, _BAR = 20.0, 10.0


def hatching(name: str, boxes: Sequence[Box]) -> Markup:
    """Draw lines across boxes; ``name`` is an id for their pattern."""
    if not boxes:
        return Markup()
    stripe = tag("path", d="M0 4L4 0", stroke="#000", stroke_width=0.6, stroke_opacity=0.7)
    pattern = tag("pattern", stripe, id=name, width=4, height=4, patternUnits="userSpaceOnUse")
    outlines = "".join(
        f"{path((x, y))}h{coordinate(w)}v{coordinate(h)}h{coordinate(-w)}Z" for x, y, w, h in boxes
    )
    return group(tag("defs", pattern), tag("path", d=outlines, fill=f"url(#{name})"))


def shade_legend(
    shades: Shades,
    words: str,
    numbers: Numbers,
    top: float,
    *,
    hatched: str | None = None,
    notes: Sequence[str] = (),
) -> tuple[Markup, float]:
    """Say what the shades mean.

    Args:
        words: what a value is.
        hatched: an id for the lines across what is below the centre; None where there are none.
        notes: what else is to be said, each on a line.

    Returns:
        It, and its height.
    """
    steps = _STEPS if shades.high > shades.low else 0
    values = [
        shades.low * (1 - part) + shades.high * part
        for part in (i / (steps or 1) for i in range(steps + 1))
    ]
    said = wrap(shown(words, _LONGEST), _LINE)
    bar = top + TEXT * 1.2 * len(said) + 3
    boxes = [(number * _SWATCH, bar, _SWATCH, _BAR) for number in range(len(values))]
    marks = [text(one, 0, top + TEXT * (1 + 1.2 * i)) for i, one in enumerate(said)]
    marks += map(_swatch, boxes, map(shades.colour, values))
    if hatched and steps:
        below = [box for box, one in zip(boxes, values, strict=True) if shades.is_below(one)]
        marks.append(hatching(hatched, below))
        notes = [f"lines across: below {written(shades.centre or 0.0, numbers)}", *notes]
    y = bar + _BAR + SMALL + 2
    marks.append(text(written(shades.low, numbers), 0, y, size=SMALL))
    if steps:
        end = len(boxes) * _SWATCH
        named = [("end", end, shades.high)]
        if shades.centre is not None:
            named.append(("middle", end / 2, shades.centre))
        for anchor, x, value in named:
            marks.append(text(written(value, numbers), x, y, size=SMALL, text_anchor=anchor))
    for note in notes:
        y += SMALL + 4
        marks.append(text(note, 0, y, WIDTH, SMALL))
    return group(*marks), y - top + 6


def _swatch(box: Box, colour: tuple[int, int, int]) -> Markup:
    left, top, width, height = box
    return tag("rect", x=left, y=top, width=width, height=height, fill=fill(colour))
