"""Pictures of a landscape as PNG files (needs matplotlib)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from patchc.evaluation.drawing import explain_above, open_figure, write_figure
from patchc.evaluation.rates import Rate
from patchc.landscapes.curves import Curve, CurvePoint, Landscape, Plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Dash = str | tuple[int, tuple[int, int]]

_RATES: tuple[tuple[str, str, _Dash, Callable[[CurvePoint], Rate | None]], ...] = (
    ("harmful requests refused", "tab:blue", "-", lambda point: point.refused),
    ("harmful requests answered", "tab:red", "--", lambda point: point.harmful),
    ("harmful: incoherent", "tab:gray", ":", lambda point: point.incoherent),
    ("harmless requests refused", "tab:orange", "-.", lambda point: point.over_refusal),
    ("questions right", "tab:green", (0, (1, 1)), lambda point: point.utility),
)


def draw_landscape(found: Landscape, folder: Path) -> list[Path]:
    """Draw what there is of "directions", "line" and "planes" into a folder, as PNG files.

    Existing files are replaced.

    Raises:
        MissingExtraError: matplotlib is not installed.
        StorageError: a file cannot be written.
    """
    paths = []
    for name, figure in landscape_figures(found).items():
        path = folder / f"{name}.png"
        write_figure(figure, path, replace=True)
        paths.append(path)
    return paths


def landscape_figures(found: Landscape) -> dict[str, Figure]:
    """Make the figures; one with nothing to draw is left out.

    "directions" has a panel for base and patched model, without and with the system message: the
    mean over the random directions, and their range. "line" has the line through the patch, and
    "planes" the mean margin of refusal of harmful and harmless requests on each grid, with the
    contour where it is 0.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    panels: dict[str, list[Curve]] = {}
    for curve in found.curves:
        system = ", with system message" if curve.system else ""
        panels.setdefault(f"{curve.subject}{system}", []).append(curve)
    lines = {title: curves for title, curves in panels.items() if curves[0].subject == "line"}
    around = {title: curves for title, curves in panels.items() if title not in lines}
    figures = {}
    if around:
        figures["directions"] = _draw_curves(around, "alpha, mean and range of directions")
    if lines:
        figures["line"] = _draw_curves(lines, "0 is the base, 1 the patched model")
    if found.planes:
        figures["planes"] = _draw_planes(found.planes)
    return figures


def _draw_curves(panels: dict[str, list[Curve]], below: str) -> Figure:
    figure = open_figure(5.5 * len(panels), 4.6)
    for axes, (title, curves) in zip(
        figure.subplots(1, len(panels), squeeze=False, sharey=True)[0], panels.items(), strict=True
    ):
        for rate in _RATES:
            _draw_rate(axes, curves, *rate)
        axes.set(xlabel=f"{title}: {below}", ylim=(-0.02, 1.02))
        axes.grid(alpha=0.3)
    first = figure.axes[0]
    first.set_ylabel("share of requests")
    explain_above(first, columns=2)
    return figure


def _draw_rate(
    axes: Axes,
    curves: Sequence[Curve],
    name: str,
    colour: str,
    dash: _Dash,
    rate_of: Callable[[CurvePoint], Rate | None],
) -> None:
    values: dict[float, list[float]] = {}
    for curve in curves:
        for point in curve.points:
            rate = rate_of(point)
            if rate is not None:
                values.setdefault(point.alpha, []).append(rate.value)
    alphas = sorted(values)
    found = [values[alpha] for alpha in alphas]
    if found:
        means = [sum(each) / len(each) for each in found]
        axes.plot(alphas, means, color=colour, linestyle=dash, marker=".", label=name)
        axes.fill_between(alphas, [*map(min, found)], [*map(max, found)], color=colour, alpha=0.15)


def _draw_planes(planes: Sequence[Plane]) -> Figure:
    figure = open_figure(9, 4 * len(planes))
    rows = figure.subplots(len(planes), 2, squeeze=False)
    for row, plane in zip(rows, planes, strict=True):
        for axes, (what, grid) in zip(
            row, (("harmful", plane.harmful), ("harmless", plane.harmless)), strict=True
        ):
            largest = max(1e-9, *(abs(value) for line in grid for value in line))
            drawn = axes.pcolormesh(
                plane.alphas, plane.alphas, grid, cmap="RdBu", vmin=-largest, vmax=largest
            )
            if min(map(min, grid)) < 0 < max(map(max, grid)):
                axes.contour(plane.alphas, plane.alphas, grid, levels=[0], colors="black")
            system = ", with system message" if plane.system else ""
            axes.set_title(f"{plane.subject}{system}: {what} requests")
            axes.set(
                xlabel=f"direction {plane.directions[0]}", ylabel=f"direction {plane.directions[1]}"
            )
            figure.colorbar(drawn, ax=axes, label="mean margin of refusal")
    return figure
