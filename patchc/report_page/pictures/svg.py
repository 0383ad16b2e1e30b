"""Elements of SVG, in the units of a picture that is 360 wide."""

from __future__ import annotations

import unicodedata

from markupsafe import Markup, escape

from patchc.escaping import shown
from patchc.report_page.pictures.values import Caption

Attributes = dict[str, str | float]
"""Attributes that several elements share."""

WIDTH = 360.0
"""Of a picture: near the pixels that a phone has for it, so that units there are pixels."""

TEXT = 12.0
"""The size of text."""

SMALL = 11.0
"""The size of numbers on axes."""

_LONGEST, _LONGEST_DESCRIPTION = 300, 3000
"""Characters of a text that are shown."""

_WIDE, _NARROW = 1.0, 0.58
"""Width of a character over its size: of East Asian ones, and of others, roughly."""


def tag(name: str, *content: str, **attributes: str | float | None) -> Markup:
    """Write an element; attributes of None are left out, and ``_`` stands for ``-``."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(content)
    return Markup(f"<{name}{written}>{inside}</{name}>" if inside else f"<{name}{written}/>")


def group(*content: str, **attributes: str | float | None) -> Markup:
    """Put elements together; the attributes hold for each of them."""
    return tag("g", *content, **attributes)


def text(
    words: str, x: float, y: float, most: float = WIDTH, size: float = TEXT, **more: str | float
) -> Markup:
    """Write a line of text whose baseline is at ``y``; what is wider than ``most`` is cut.

    A pointer that rests on a cut text shows all of it.
    """
    whole = shown(words, _LONGEST)
    short = _fitting(whole, most, size)
    hint = () if short == whole else (tooltip(whole),)
    return tag("text", short, *hint, x=x, y=y, font_size=size, **more)


def tooltip(words: str) -> Markup:
    """Write what a pointer shows that rests on the element around it."""
    return tag("title", shown(words, _LONGEST))


def _fitting(words: str, most: float, size: float) -> str:
    """Cut a text to a width."""
    if width_of(words, size) <= most:
        return words
    kept = len(words)
    while kept and width_of(words[:kept] + "…", size) > most:
        kept -= 1
    return words[:kept] + "…"


def width_of(words: str, size: float) -> float:
    """Guess how wide a text is, in a common font without serifs."""
    wide = sum(unicodedata.east_asian_width(one) in "WF" for one in words)
    return size * (_WIDE * wide + _NARROW * (len(words) - wide))


def line(x1: float, y1: float, x2: float, y2: float, **more: str | float) -> Markup:
    """Draw a line in the colour of the text."""
    return tag("path", d=path((x1, y1), (x2, y2)), stroke="currentColor", fill="none", **more)


def path(*points: tuple[float, float]) -> str:
    """Write the path through points."""
    return "M" + "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in points)


def picture(caption: Caption, height: float, *content: str, width: float = WIDTH) -> Markup:
    """Put a picture together, with its name and description."""
    title, description = f"{caption.prefix}-title", f"{caption.prefix}-desc"
    return tag(
        "svg",
        tag("title", shown(caption.title, _LONGEST), id=title),
        tag("desc", shown(caption.description, _LONGEST_DESCRIPTION), id=description),
        *content,
        class_="picture",
        role="img",
        aria_labelledby=f"{title} {description}",
        viewBox=f"0 0 {coordinate(width)} {coordinate(height)}",
        width="100%",
        fill="currentColor",
        font_size=TEXT,
    )


def empty_picture(caption: Caption) -> Markup:
    """Say that there is nothing to draw."""
    return picture(caption, 24, text("no values", 0, 16))


def coordinate(value: float) -> str:
    """Write a coordinate to a hundredth."""
    written = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if written == "-0" else written


def _attribute(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else coordinate(value)
