"""Grids of coloured cells: what changed where, and what happened after each turn."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from patchc.report_page.pictures.values import Caption, Numbers


def heat_map(
    caption: Caption,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    legend: str,
    numbers: Numbers = "plain",
    centre: float | None = None,
) -> Markup:
    """Draw a map of up to some 128 rows (layers) and 12 columns (modules).

    Args:
        rows, columns: names of the rows, from the top, and of the columns.
        values: for each row, one for each column; None where there is none.
        legend: what a value is, with its unit.
        centre: the value in the middle of a scale with two ends, such as 1 for scales; without it
            the scale has one end and begins at the smallest value, or at 0.
    """
    raise NotImplementedError


def matrix(
    caption: Caption,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    legend: str,
    numbers: Numbers = "percent",
) -> Markup:
    """Draw few cells with their numbers, such as turns by categories.

    Args:
        rows, columns: names of the rows, from the top, and of the columns.
        values: for each row, one for each column; None where there is none.
        legend: what a value is.
    """
    raise NotImplementedError
