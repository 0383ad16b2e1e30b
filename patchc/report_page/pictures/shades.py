"""Shades for values, from light to dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchc.report_page.pictures.numerals import drawable

_Colour = tuple[int, int, int]

_RISING: tuple[_Colour, ...] = ((239, 246, 252), (92, 155, 208), (8, 48, 107))
_BELOW: tuple[_Colour, ...] = ((247, 247, 247), (224, 140, 60), (110, 50, 2))
_ABOVE: tuple[_Colour, ...] = ((247, 247, 247), (110, 160, 205), (8, 48, 107))


@dataclass(frozen=True)
class Shades:
    """A scale of shades.

    Attributes:
        low, high: the values at its ends.
        centre: the value at which it is lightest; None where that is ``low``.
    """

    low: float
    high: float
    centre: float | None

    def colour(self, value: float) -> _Colour:
        """Return the colour of a value."""
        if self.centre is None:
            return _between(_RISING, _share(value - self.low, self.high - self.low))
        away, most = value - self.centre, self.high - self.centre
        return _between(_ABOVE if away >= 0 else _BELOW, _share(abs(away), most))

    def is_below(self, value: float) -> bool:
        """Say whether a value is below the centre."""
        return self.centre is not None and value < self.centre


def shades_for(
    values: Sequence[float | None], centre: float | None, least: Sequence[float] = ()
) -> Shades:
    """Make a scale that has all values.

    Args:
        values: those that are not finite do not count.
        centre: the value in its middle; None for a scale that begins at 0 or below.
        least: values that it has in any case.
    """
    finite = drawable([*values, *least])
    if centre is None:
        return Shades(min([0.0, *finite]), max(finite, default=0.0), None)
    most = max((abs(one - centre) for one in finite), default=0.0)
    return Shades(centre - most, centre + most, centre)


def fill(colour: _Colour) -> str:
    """Write a colour."""
    return "#" + "".join(f"{one:02x}" for one in colour)


def ink(colour: _Colour) -> str:
    """Return black or white, whichever is read better on a colour (WCAG 2's luminance)."""
    linear = [
        one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4
        for one in (part / 255 for part in colour)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#fff"


def _share(part: float, of: float) -> float:
    return min(1.0, max(0.0, part / of)) if of > 0 else 0.0


def _between(stops: Sequence[_Colour], share: float) -> _Colour:
    place = share * (len(stops) - 1)
    first = min(int(place), len(stops) - 2)
    part = place - first
    red, green, blue = (
        round(a + (b - a) * part) for a, b in zip(stops[first], stops[first + 1], strict=True)
    )
    return red, green, blue
