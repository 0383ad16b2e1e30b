"""The figures of a sweep as PNG files (needs matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchc.errors import MissingExtraError
from patchc.evaluation.shares import shares_by_layer, shares_by_module
from patchc.evaluation.trials import Trial
from patchc.files import storage_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RATES = (("harmful", "tab:red"), ("over_refusal", "tab:blue"))
_COMPONENTS = {"se": "tab:red", "osm": "tab:blue"}


def draw_sweep(base: Trial, trials: Sequence[Trial], best: Trial, folder: Path) -> list[Path]:
    """Draw ``retention.png``, ``rates-and-scales.png`` and ``parameters.png`` into a folder.

    The first two show the harmful and the over-refusal rate against p, and against a, b, α and β:
    the mean over all trials with that value and their range, the base's as a dotted line. The third
    shows where the best trial's SE and OSM parameters lie. Existing files are replaced.

    Raises:
        MissingExtraError: matplotlib is not installed.
        StorageError: a file cannot be written.
    """
    figure_type = _figure_type()
    return [
        _save(_against(figure_type, base, trials, ("retain",)), folder / "retention.png"),
        _save(
            _against(figure_type, base, trials, ("top_se", "top_osm", "alpha", "beta")),
            folder / "rates-and-scales.png",
        ),
        _save(_parameters(figure_type, best), folder / "parameters.png"),
    ]


def _figure_type() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            f"figures need {error.name}; install it with `pip install 'patchc[plot]'`"
        ) from error
    return Figure


def _against(
    figure_type: type[Figure], base: Trial, trials: Sequence[Trial], names: tuple[str, ...]
) -> Figure:
    figure = figure_type(figsize=(4 * len(names), 3.2), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axes, name in zip(panels, names, strict=True):
        for rate, colour in _RATES:
            _draw_rate(axes, base, trials, name, rate, colour)
        axes.set_xlabel(name)
        axes.set_ylim(-0.02, 1.02)
    panels[0].set_ylabel("rate")
    panels[-1].legend()
    return figure


def _draw_rate(
    axes: Axes, base: Trial, trials: Sequence[Trial], name: str, rate: str, colour: str
) -> None:
    by_value: dict[float, list[float]] = {}
    for trial in trials:
        if trial.recipe is not None:
            by_value.setdefault(trial.recipe[name], []).append(getattr(trial, rate).value)
    values = sorted(by_value)
    found = [by_value[value] for value in values]
    means = [sum(rates) / len(rates) for rates in found]
    label = rate.replace("_", "-")
    axes.plot(values, means, marker="o", color=colour, label=label)
    axes.fill_between(values, [*map(min, found)], [*map(max, found)], color=colour, alpha=0.15)
    axes.axhline(getattr(base, rate).value, color=colour, linestyle=":", linewidth=1)


def _parameters(figure_type: type[Figure], best: Trial) -> Figure:
    figure = figure_type(figsize=(10, 6), layout="constrained")
    parts = (("layer", shares_by_layer), ("module", shares_by_module))
    for axes, (title, shares_by) in zip(figure.subplots(2, 1), parts, strict=True):
        shares = shares_by(best.selected or {})
        width = 0.8 / max(1, len(shares))
        labels: list[str] = []
        for number, (component, found) in enumerate(shares.items()):
            labels = list(found)
            places = [place + number * width for place in range(len(labels))]
            axes.bar(places, found.values(), width, color=_COMPONENTS[component], label=component)
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axes.set_ylabel("share of parameters")
        axes.set_title(f"selected parameters by {title}")
        if shares:
            axes.legend()
    return figure


def _save(figure: Any, path: Path) -> Path:
    with storage_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    return path
