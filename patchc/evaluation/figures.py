"""The figures of a sweep as PNG files (needs matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchc.errors import MissingExtraError
from patchc.evaluation.shares import Selected, shares_by_layer, shares_by_module
from patchc.evaluation.trials import Trial
from patchc.files import storage_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RATES = (("harmful", "tab:red"), ("over_refusal", "tab:blue"))
_MISANSWERED = ("misanswered", "tab:orange")
_COMPONENTS = {"se": "tab:red", "osm": "tab:blue"}
_PANELS = 4
"""Most panels side by side."""


def draw_sweep(base: Trial, trials: Sequence[Trial], best: Trial, folder: Path) -> list[Path]:
    """Draw the figures of :func:`sweep_figures` into a folder, as PNG files of their names.

    Existing files are replaced.

    Raises:
        MissingExtraError: matplotlib is not installed.
        StorageError: a file cannot be written.
    """
    figures = sweep_figures(base, trials, best)
    return [_save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def sweep_figures(base: Trial, trials: Sequence[Trial], best: Trial) -> dict[str, Figure]:
    """The figures of a sweep over any method, those that there is nothing to draw in left out.

    "rates" shows the harmful and the over-refusal rate, and where there are such replies the
    misanswered one, against every number that was varied, seeds aside: the mean over all trials
    with that value and their range, the base's as a dotted line.
    "parameters" shows where the entries lie that the best trial's components are applied to.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure_type = _figure_type()
    figures = {}
    if varied := _varied(trials):
        figures["rates"] = _against(figure_type, base, trials, varied)
    if best.selected:
        figures["parameters"] = _parameters(figure_type, best.selected)
    return figures


def _varied(trials: Sequence[Trial]) -> list[str]:
    recipes = [trial.recipe for trial in trials if trial.recipe is not None]
    names = [name for name in recipes[0] if name != "seed"] if recipes else []
    return [name for name in names if _differ([recipe.get(name) for recipe in recipes])]


def _differ(values: Sequence[Any]) -> bool:
    return all(type(value) in (int, float) for value in values) and len(set(values)) > 1


def _figure_type() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            f"figures need {error.name}; install it with `pip install 'patchc[plot]'`"
        ) from error
    return Figure


def _against(
    figure_type: type[Figure], base: Trial, trials: Sequence[Trial], names: Sequence[str]
) -> Figure:
    columns = min(len(names), _PANELS)
    rows = -(-len(names) // columns)
    figure = figure_type(figsize=(4 * columns, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes in panels[len(names) :]:
        axes.remove()
    panels = panels[: len(names)]
    misanswered = any(trial.misanswered.hits for trial in (base, *trials))
    rates = (*_RATES, _MISANSWERED) if misanswered else _RATES
    for axes, name in zip(panels, names, strict=True):
        for rate, colour in rates:
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


def _parameters(figure_type: type[Figure], selected: Selected) -> Figure:
    figure = figure_type(figsize=(10, 6), layout="constrained")
    parts = (("layer", shares_by_layer), ("module", shares_by_module))
    for axes, (title, shares_by) in zip(figure.subplots(2, 1), parts, strict=True):
        shares = shares_by(selected)
        width = 0.8 / max(1, len(shares))
        labels: list[str] = []
        for number, (component, found) in enumerate(shares.items()):
            labels = list(found)
            places = [place + number * width for place in range(len(labels))]
            colour = _COMPONENTS.get(component)
            axes.bar(places, found.values(), width, color=colour, label=component)
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
