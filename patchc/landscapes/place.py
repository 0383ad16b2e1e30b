"""Places around a model's weights, and those that a landscape measures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from patchc.landscapes.landscape_options import LandscapeOptions

PATCH = "patch"
"""The name of the patch among the directions; random directions are "1", "2" and so on."""

_LARGEST = 3.4e38


@dataclass(frozen=True)
class Place:
    """The weights base + patch · (patched − base) + Σ alpha · direction.

    Attributes:
        patch: 0 is the base, 1 the patched model.
        moves: how far along random directions; those with 0 are left out.
    """

    patch: float = 0.0
    moves: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, float]:
        """As JSON values; :meth:`from_json` is the inverse."""
        return {PATCH: self.patch, **self.moves}

    @classmethod
    def from_json(cls, content: Any) -> Place:
        """Invert :meth:`to_json`; other content raises the errors that a journal expects."""
        values = {name: as_number(value) for name, value in content.items()}
        place = cls(values.pop(PATCH), values)
        if not all(name.isascii() and name.isdecimal() for name in place.moves):
            raise ValueError("a random direction has no number for a name")
        return place


def as_number(value: Any) -> float:
    """Return a number of JSON that fp32 holds; other values raise the errors of a journal."""
    if type(value) not in (int, float) or not abs(value) <= _LARGEST:
        raise ValueError("a value is no number of fp32")
    return float(value)


def spread(count: int, first: float, last: float) -> tuple[float, ...]:
    """Return ``count`` numbers from first to last at equal distances.

    They are rounded to twelve digits after the point, so that a place in two grids is the same
    numbers, and the middle of a range around 0 is 0.
    """
    steps = count - 1
    # Adding 0 turns -0 into 0.
    return tuple(
        round(((steps - number) * first + number * last) / steps, 12) + 0.0
        for number in range(count)
    )


def replied_places(options: LandscapeOptions, patched: bool) -> list[Place]:
    """List the places at which the model is asked, each once, from near to far."""
    alphas = sorted(spread(options.points, -options.radius, options.radius), key=abs)
    sides = (0.0, 1.0) if patched else (0.0,)
    places = [
        Place(side, {name: alpha} if alpha else {})
        for alpha in alphas
        for side in sides
        for name in options.names
    ]
    if patched and options.line_points:
        places += map(Place, spread(options.line_points, 0.0, options.line_end))
    return _each_once(places)


def margin_places(options: LandscapeOptions, patched: bool) -> list[Place]:
    """List the places of the planes over the first two directions, row by row."""
    if not options.plane_points:
        return []
    alphas = spread(options.plane_points, -options.radius, options.radius)
    first, second = options.names[:2]
    sides = (0.0, 1.0) if patched else (0.0,)
    return [
        Place(side, {name: at for name, at in ((first, x), (second, y)) if at})
        for side in sides
        for y in alphas
        for x in alphas
    ]


def _each_once(places: Iterable[Place]) -> list[Place]:
    return list({str(place.to_json()): place for place in places}.values())
