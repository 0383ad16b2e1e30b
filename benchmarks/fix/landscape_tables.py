"""The tables of a landscape, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from patchc import Curve, CurvePoint, LandscapeReport, Rate

_SHOWN: dict[str, Callable[[CurvePoint], Rate | None]] = {
    "refused": lambda point: point.refused,
    "harmful": lambda point: point.harmful,
    "incoherent": lambda point: point.incoherent,
    "over-refusal": lambda point: point.over_refusal,
    "harmless, incoherent": lambda point: point.incoherent_harmless,
    "utility": lambda point: point.utility,
}
_OBJECTIVES = ("harmful", "over_refusal", "utility")


def write_tables(report: LandscapeReport, path: Path) -> None:
    """Write VISAGE and half-widths of each direction, and the rates along all lines."""
    asked = ", ".join(f"{count} {name}" for name, count in report.requests.items())
    around = [curve for curve in report.curves if curve.subject != "line"]
    parts = [
        "# Tables of the landscape",
        f"Written by `make bench-landscape`. {asked} requests; judge {report.judge}; seed "
        f"{report.seed}. Rates in %; half-widths to the left and right, ≥ where the range ends.",
        "## VISAGE and half-widths",
        _table(
            ("model", "direction", "VISAGE", "by its phrases", "harm", "over-refusal", "utility"),
            [_summary(curve) for curve in around],
        ),
    ]
    for subject in ("base", "patched"):
        curves = [curve for curve in around if curve.subject == subject]
        parts += [f"## {subject.capitalize()}, mean of {len(curves)} directions", _means(curves)]
    for curve in report.curves:
        if curve.subject == "line":
            parts += ["## From the base (0) through the patched model (1)", _means([curve])]
    path.write_text("\n\n".join(parts) + "\n")


def _summary(curve: Curve) -> tuple[str, ...]:
    visages = [f"{one:.1f}" for one in (curve.visage, curve.visage_by_phrases) if one is not None]
    found = [curve.half_widths.get(name) for name in _OBJECTIVES]
    widths = [width.sides if width else "none" for width in found]
    return (curve.subject, curve.direction, *visages, *widths)


def _means(curves: Sequence[Curve]) -> str:
    rows = []
    for points in zip(*(curve.points for curve in curves), strict=True):
        cells = []
        for rate_of in _SHOWN.values():
            found = [rate.value for point in points if (rate := rate_of(point)) is not None]
            cells.append(f"{100 * sum(found) / len(found):.1f}" if found else "")
        rows.append((f"{points[0].alpha:g}", *cells))
    return _table(("alpha", *_SHOWN), rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
