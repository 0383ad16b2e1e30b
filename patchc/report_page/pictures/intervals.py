"""Values with their intervals, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from patchc.report_page.pictures.values import Caption, IntervalRow, Numbers


def intervals(
    caption: Caption,
    *,
    rows: Sequence[IntervalRow],
    series: Sequence[str] = ("base", "patched"),
    numbers: Numbers = "percent",
) -> Markup:
    """Draw for each row a mark and an interval for each series, on one axis.

    With ``percent`` the axis goes from 0 to 100.

    Args:
        series: names of the values of each row, up to 6.
    """
    raise NotImplementedError
