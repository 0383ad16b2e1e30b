"""Pictures of the report page: SVG without scripts, for eyes, paper and screen readers.

Each function takes plain values and returns one ``<svg>`` element as :class:`markupsafe.Markup`,
the same for the same values. It escapes every text. Each mark's ``data-value`` holds the ``repr``
of the number that it shows. Text and axes have the page's colour (``currentColor``), and no meaning
is in colour alone. The elements have the class ``picture``; text has a good size where they are 320
to 500 pixels wide. What is not finite has no mark, or one that says so.
"""

from patchc.report_page.pictures.heat_map import heat_map, matrix
from patchc.report_page.pictures.intervals import intervals
from patchc.report_page.pictures.lines import lines
from patchc.report_page.pictures.plane import plane
from patchc.report_page.pictures.values import (
    Caption,
    IntervalRow,
    Line,
    LinePoint,
    Numbers,
    Reference,
    WithInterval,
)

__all__ = [
    "Caption",
    "IntervalRow",
    "Line",
    "LinePoint",
    "Numbers",
    "Reference",
    "WithInterval",
    "heat_map",
    "intervals",
    "lines",
    "matrix",
    "plane",
]
