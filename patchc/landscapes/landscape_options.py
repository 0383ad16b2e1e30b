"""The parameters of a landscape, validated; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from patchc.errors import UsageError
from patchc.recipe import checks

_MOST_DIRECTIONS, _MOST_POINTS = 100, 1001
_LEAST_END, _LARGEST_END = 1e-6, 1e6


@dataclass(frozen=True)
class LandscapeOptions:
    """Which places a landscape measures.

    Attributes:
        directions: random directions, at least 1.
        points: points along each, an odd number, so that the middle one is at 0.
        radius: the first point is at −radius, the last at radius. At alpha = 1 each tensor has
            changed by as much as its own norm.
        line_points: points along the line from the base through the patched model; 0 leaves it out.
        line_end: where the line ends; 1 is the patched model.
        plane_points: points along each side of the grid over the first two directions, an odd
            number; 0 leaves it out.
        seed: of the random directions, 64 bits.

    Raises:
        UsageError: a parameter is of the wrong type or out of range.
    """

    directions: int = 3
    points: int = 21
    radius: float = 0.5
    line_points: int = 21
    line_end: float = 2.0
    plane_points: int = 11
    seed: int = 0

    def __post_init__(self) -> None:
        checks.count("directions", self.directions, _MOST_DIRECTIONS + 1)
        _check_points("points", self.points, odd=True)
        if self.line_points != 0:
            _check_points("line_points", self.line_points, odd=False)
        if self.plane_points != 0:
            _check_points("plane_points", self.plane_points, odd=True)
            if self.directions < 2:
                raise UsageError("a plane needs two directions; give them, or plane_points 0")
        _check_end("radius", self.radius)
        _check_end("line_end", self.line_end)
        checks.seed("seed", self.seed)

    @property
    def names(self) -> tuple[str, ...]:
        """The random directions' names."""
        return tuple(str(number) for number in range(1, self.directions + 1))


def _check_end(name: str, value: object) -> None:
    end = checks.positive(name, value)
    if not _LEAST_END <= end <= _LARGEST_END:
        raise UsageError(
            f"{name} is {end:g}; it must lie between {_LEAST_END:g} and {_LARGEST_END:g}"
        )


def _check_points(name: str, value: object, odd: bool) -> None:
    count = checks.count(name, value, _MOST_POINTS + 1)
    if count < 3:
        raise UsageError(f"{name} is {count}; it must be at least 3")
    if odd and count % 2 == 0:
        raise UsageError(f"{name} is {count}; give an odd number, so that the middle point is 0")
