"""A grid of values over two coordinates."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from patchc.report_page.pictures.values import Caption


def plane(
    caption: Caption,
    *,
    alphas: Sequence[float],
    values: Sequence[Sequence[float]],
    x_label: str,
    y_label: str,
    legend: str,
) -> Markup:
    """Draw values on a square grid, with a line between those above 0 and those below.

    Args:
        alphas: the coordinates of the columns, and of the rows; rising.
        values: for each row, one for each column; the first row is at the bottom.
        x_label, y_label: what the coordinates are.
        legend: what a value is.
    """
    raise NotImplementedError
