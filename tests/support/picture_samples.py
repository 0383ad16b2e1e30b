"""One of each picture of the report page, with many values."""

from __future__ import annotations

import math

from markupsafe import Markup

from patchc.evaluation.rates import Rate
from patchc.report_page.pictures import (
    Caption,
    IntervalRow,
    Line,
    LinePoint,
    Reference,
    heat_map,
    intervals,
    lines,
    matrix,
    plane,
)

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
HOSTILE = "\"'><script>alert(1)</script><b onclick=alert(1)>&amp;\x1b[31m\u202e\x00\ud800" * 9


def caption(prefix: str, words: str = "a name") -> Caption:
    return Caption(prefix, words, f"What is seen: {words}.")


def layers(count: int, middle: float) -> list[list[float | None]]:
    return [
        [middle + math.sin(i * 3 + j) / 3 if (i + j) % 17 else None for j in range(len(MODULES))]
        for i in range(count)
    ]


def every_picture(words: str = "a name") -> list[Markup]:
    """Draw one of each; ``words`` are all their texts."""
    hit, miss = Rate(40, 64), Rate(0, 64)
    rows = [IntervalRow(words, (hit, miss), (words, words)), IntervalRow(words, (hit, None))]
    points = [LinePoint(i / 10, i * i / 100, i * i / 110, i * i / 90) for i in range(-10, 11)]
    curve = [Line(words, points), Line(words, points[:3])]
    columns = [words, *MODULES[1:]]
    alphas = [i / 10 for i in range(-5, 6)]
    margins = [[0.1 - x * x - y * y for x in alphas] for y in alphas]
    return [
        heat_map(
            caption("changed", words),
            rows=[words, *map(str, range(29))],
            columns=columns,
            values=layers(30, 0.5),
            legend=words,
            numbers="percent",
        ),
        heat_map(
            caption("scales", words),
            rows=[words, *map(str, range(127))],
            columns=columns,
            values=layers(128, 1.0),
            legend=words,
            centre=1.0,
        ),
        intervals(caption("rates", words), rows=rows, series=(words, words)),
        lines(
            caption("curve", words),
            series=curve,
            x_label=words,
            y_label=words,
            references=[Reference(0.0, words)],
        ),
        plane(
            caption("plane", words),
            alphas=alphas,
            values=margins,
            x_label=words,
            y_label=words,
            legend=words,
        ),
        matrix(
            caption("turns", words),
            rows=[words],
            columns=columns,
            values=[[0.0, 0.25, 0.5, 0.75, 1.0, None, math.nan]],
            legend=words,
        ),
    ]
