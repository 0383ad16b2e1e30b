"""Lines over one axis, with bands."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from patchc.report_page.pictures.values import Caption, Line, Numbers, Reference


def lines(
    caption: Caption,
    *,
    series: Sequence[Line],
    x_label: str,
    y_label: str,
    numbers: Numbers = "plain",
    references: Sequence[Reference] = (),
) -> Markup:
    """Draw up to 6 lines, each with its own dashes and markers, and a legend.

    Args:
        series: the lines. With ``percent`` their y axis goes from 0 to 100.
        x_label, y_label: what the axes are.
        references: places on the x axis that are marked and named.
    """
    raise NotImplementedError
