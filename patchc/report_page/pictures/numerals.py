"""Numbers as the pictures write them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from patchc.report_page.pictures.values import Numbers

_MOST = 1e300
"""Beyond it, differences may overflow."""

_SMALLEST_PERCENT = 0.1
_FIRST_THOUSAND, _FIRST_MILLION = 999.5, 1e6


def can_be_drawn(value: float | None) -> bool:
    """Say whether a value has a place on an axis."""
    return value is not None and math.isfinite(value) and abs(value) < _MOST


def drawable(values: Iterable[float | None]) -> list[float]:
    """Return the values that have a place on an axis."""
    return [one for one in values if one is not None and can_be_drawn(one)]


def written(value: float, numbers: Numbers) -> str:
    """Write a number with some three digits, and its unit."""
    return f"{brief(value, numbers)} %" if numbers == "percent" else brief(value, numbers)


def brief(value: float, numbers: Numbers) -> str:
    """Write a number with some three digits, without the sign of percent."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if numbers == "percent":
        percent = 100 * value
        short = f"{percent:.2g}" if 0 < abs(percent) < _SMALLEST_PERCENT else f"{percent:.1f}"
    elif _FIRST_THOUSAND <= abs(value) < _FIRST_MILLION:
        short = f"{value:,.0f}"
    else:
        short = f"{value:.3g}"
    return short.replace("-", "−")


def whole(value: float, numbers: Numbers) -> str:
    """Write a round number, such as one on an axis, without digits that say nothing."""
    short = brief(value, numbers)
    return short.removesuffix(".0")
