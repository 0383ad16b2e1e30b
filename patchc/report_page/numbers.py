"""How the page writes numbers: each one here, once, with what it is exactly."""

from __future__ import annotations

from collections.abc import Mapping

from patchc.evaluation.paired import Change
from patchc.evaluation.rates import Rate
from patchc.report_page.blocks import Cell, Number, Part


def count(value: int) -> Number:
    """Write a whole number."""
    return Number(f"{value:,}", value)


def real(value: float) -> Number:
    """Write a number with four digits."""
    return Number(f"{value:.4g}", value)


def percent(value: float, digits: int = 1) -> Number:
    """Write a share of 1 in percent."""
    return Number(f"{100 * value:.{digits}f} %", value)


def points(value: float) -> Number:
    """Write a difference of shares in percentage points, with its sign."""
    return Number(f"{100 * value:+.1f}", value)


def probability(value: float) -> Number:
    """Write a p-value."""
    return Number(f"{value:.2g}", value)


def rate(one: Rate | None) -> Cell:
    """Write a rate with its interval and its counts; nothing where there is none."""
    if one is None:
        return ()
    low, high = (Number(f"{100 * limit:.1f}", limit) for limit in (one.low, one.high))
    parts = (percent(one.value), " [", low, ", ", high, "], ")
    return (*parts, count(one.hits), " of ", count(one.total))


def change(one: Change | None) -> Cell:
    """Write a difference of rates in points, with its interval; nothing where there is none."""
    if one is None:
        return ()
    return (points(one.difference), " [", points(one.low), ", ", points(one.high), "]")


def nbytes(value: int) -> Cell:
    """Write a size."""
    return (count(value), " bytes")


def some(value: float | None) -> Cell:
    """Write a number, or nothing."""
    return () if value is None else (real(value),)


def json_value(value: object, most: int = 200) -> Cell:
    """Write a value of JSON: numbers with their digits, others as texts of at most ``most``."""
    if isinstance(value, bool) or value is None:
        return ({True: "yes", False: "no", None: "none"}[value],)
    if isinstance(value, int | float):
        return (Number(f"{value:,}" if isinstance(value, int) else repr(value), value),)
    if isinstance(value, str):
        return (value[:most] + ("…" if len(value) > most else ""),)
    return _joined(value, most)


def _joined(value: object, most: int) -> Cell:
    """Write the entries of a list, or the names and values of an object, one after another."""
    named = value.items() if isinstance(value, Mapping) else ((None, one) for one in _listed(value))
    parts: list[Part] = []
    for name, one in named:
        if len(parts) > most:
            return (*parts, ", …")
        parts += [", "] if parts else []
        parts += [f"{str(name)[:most]} "] if name is not None else []
        parts += json_value(one, most)
    return parts or ("none",)


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [str(value)]
