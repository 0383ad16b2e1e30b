"""What the pictures are drawn from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Numbers = Literal["plain", "percent"]
"""How numbers are written: as they are, or shares of 1 in percent."""

_PREFIX = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True)
class Caption:
    """What a picture says to those who do not see it.

    Attributes:
        prefix: begins every id in the picture; each picture of a page has its own. Lower-case
            letters, digits and hyphens, a letter first.
        title: its name.
        description: what it shows, in a sentence or two.

    Raises:
        ValueError: ``prefix`` is of another form.
    """

    prefix: str
    title: str
    description: str

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise ValueError(f"{self.prefix!r} cannot begin an id")


class WithInterval(Protocol):
    """A value between two limits; a :class:`patchc.Rate` is one."""

    @property
    def value(self) -> float:
        """The value."""

    @property
    def low(self) -> float:
        """The lower limit."""

    @property
    def high(self) -> float:
        """The upper limit."""


@dataclass(frozen=True)
class IntervalRow:
    """One row of :func:`patchc.report_page.pictures.intervals`.

    Attributes:
        name: what the row is, such as an objective or a kind.
        values: one for each series; None where there is none.
        notes: for each series, what stands beside its value, such as "3 of 64"; or none at all.
    """

    name: str
    values: Sequence[WithInterval | None]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class LinePoint:
    """A point of a line, with the limits of its band if it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """A named line through points, drawn by rising x.

    Attributes:
        name: what it is.
        points: its points, in any order.
        level: a value that it is compared with, drawn thin across the picture; None without one.
    """

    name: str
    points: Sequence[LinePoint]
    level: float | None = None


@dataclass(frozen=True)
class Reference:
    """A place on the x axis that has a name, such as the base at 0 and the patched model at 1."""

    x: float
    name: str
