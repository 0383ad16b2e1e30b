"""Panels of points with fitted lines as one SVG file, for the benchmarks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

_WIDTH, _HEIGHT = 590, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 215, 34, 46
_COLUMNS = 2
_ROW = 19
_FONT = 'font-family="sans-serif" font-size="13" fill="#222"'

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Series:
    """Points (x, y, filled), and slope and start of the line that is drawn through them."""

    label: str
    colour: str
    points: list[tuple[float, float, bool]]
    line: tuple[float, float] | None = None


@dataclass(frozen=True)
class Panel:
    """A chart of its own; both axes begin at 0."""

    title: str
    across: str
    series: list[Series]


def write_svg(path: Path, panels: list[Panel], caption: str) -> None:
    """Draw panels two abreast, with a caption under them."""
    width = _COLUMNS * _WIDTH
    height = math.ceil(len(panels) / _COLUMNS) * _HEIGHT + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {_FONT}>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<clipPath id="panel"><rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH - _RIGHT - _LEFT}" '
        f'height="{_HEIGHT - _BOTTOM - _TOP}"/></clipPath>',
    ]
    for number, panel in enumerate(panels):
        row, column = divmod(number, _COLUMNS)
        parts += [f'<g transform="translate({column * _WIDTH} {row * _HEIGHT})">', *_panel(panel)]
        parts.append("</g>")
    parts += [_text(width / 2, height - 9, caption, "middle"), "</svg>\n"]
    path.write_text("\n".join(parts))


def _panel(panel: Panel) -> list[str]:
    points = [point for series in panel.series for point in series.points]
    across = _ticks(max((x for x, _, _ in points), default=1))
    up = _ticks(max((y for _, y, _ in points), default=1))
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x_of(value: float) -> float:
        return round(_LEFT + value / across[-1] * (right - _LEFT), 1)

    def y_of(value: float) -> float:
        return round(bottom - value / up[-1] * (bottom - _TOP), 1)

    parts = [
        _text(_LEFT, 20, panel.title, "start"),
        _text((_LEFT + right) / 2, bottom + 36, panel.across, "middle"),
    ]
    for tick in up:
        y = y_of(tick)
        parts.append(f'<line stroke="#ddd" x1="{_LEFT}" y1="{y}" x2="{right}" y2="{y}"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{tick:g}", "end"))
    for tick in across:
        x = x_of(tick)
        parts.append(f'<line stroke="#ddd" x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}"/>')
        parts.append(_text(x, bottom + 16, f"{tick:g}", "middle"))
    for series in panel.series:
        parts += _drawn(series, x_of, y_of, across[-1])
    return [*parts, *_legend(panel.series)]


def _drawn(series: Series, x_of: Scale, y_of: Scale, last: float) -> list[str]:
    parts = []
    if series.line:
        slope, start = series.line
        parts.append(
            f'<line clip-path="url(#panel)" stroke="{series.colour}" stroke-width="1.5" '
            f'x1="{x_of(0)}" y1="{y_of(start)}" '
            f'x2="{x_of(last)}" y2="{y_of(start + slope * last)}"/>'
        )
    for x, y, filled in series.points:
        place = f'cx="{x_of(x)}" cy="{y_of(y)}" r="3.5"'
        fill = series.colour if filled else "#fff"
        parts.append(f'<circle {place} fill="{fill}" stroke="{series.colour}"/>')
    return parts


def _legend(series: list[Series]) -> list[str]:
    parts = []
    for number, one in enumerate(series):
        x, y = _WIDTH - _RIGHT + 14, _TOP + 10 + number * _ROW
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{one.colour}"/>')
        parts.append(_text(x + 10, y, one.label, "start"))
    return parts


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 to at least ``most``, some five of them."""
    power = 10.0 ** math.floor(math.log10(most))
    step = next(unit * power for unit in (0.1, 0.2, 0.5, 1, 2) if 6 * unit * power >= most)
    return [number * step for number in range(math.ceil(most / step) + 1)]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
