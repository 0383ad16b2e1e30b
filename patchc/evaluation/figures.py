"""Pictures of measured rates as PNG files (needs matplotlib)."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from patchc.errors import OutputError, UsageError
from patchc.escaping import shown
from patchc.evaluation.drawing import (
    check_matplotlib,
    explain_above,
    label,
    open_figure,
    write_figure,
)
from patchc.evaluation.measure import Evaluation
from patchc.evaluation.trials import Trial
from patchc.output_checks import check_output, check_place
from patchc.selection.candidates import layer_of, module_of, natural_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RATES = (("harmful", "tab:red"), ("over_refusal", "tab:blue"))
_MISANSWERED = ("misanswered", "tab:orange")
_COMPONENTS = {"se": "tab:red", "osm": "tab:blue"}
_MOST_PANELS = 4
_LONGEST_NAME, _LONGEST_LINE = 300, 64
"""Letters of a model's name, and beside each other, so that the legend is no larger than the
figure."""
_APPLIED = " applied"

Selected = Mapping[str, Mapping[str, int]]
"""For each tensor, the statistics of its patch. SafePatching counts the entries in the top sets of
the safety enhancement ("se") and over-safety mitigation ("osm") components, in their "overlap", and
those that each component is applied to ("se applied"). A merge counts the entries of each model
("model-0") that its masks retain."""


def check_plot(path: Path) -> None:
    """Refuse early a picture that :func:`plot` could not write.

    Raises:
        UsageError: the name does not end in ``.png``.
        OutputError: the file exists.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"plot {path}: give a name that ends in .png")
    if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises where it may not look)
        raise OutputError(f"plot {path} is a folder; give the name of a file")
    check_output(path, ())
    check_matplotlib()


def check_figures(folder: Path) -> None:
    """Refuse early a folder into which :func:`draw_sweep` could not write.

    Raises:
        OutputError: something else than a folder is there, or nothing can be made there.
        StorageError: the path cannot be looked at.
        MissingExtraError: matplotlib is not installed.
    """
    check_place(folder, (), "figures")
    if os.path.lexists(folder) and not os.path.isdir(folder):  # noqa: PTH112 (as above)
        raise OutputError(f"figures {folder} is no folder; remove it or choose another path")
    check_matplotlib()


def plot(models: Sequence[Evaluation], path: Path) -> None:
    """Write a PNG of harmful rate (x) and over-refusal (y) with 95 % intervals.

    Raises:
        UsageError, OutputError, MissingExtraError: see :func:`check_plot`.
        StorageError: the operating system refused.
    """
    check_plot(path)
    cut = [wrap(shown(model.model, _LONGEST_NAME), _LONGEST_LINE) for model in models]
    names = ["\n".join(map(label, lines)) for lines in cut]
    figure = open_figure(7, 6 + 0.2 * sum(1 + name.count("\n") for name in names))
    axes = figure.add_subplot()
    for model, name in zip(models, names, strict=True):
        x, y = model.harmful, model.over_refusal
        axes.errorbar(
            x.value,
            y.value,
            xerr=[[x.value - x.low], [x.high - x.value]],
            yerr=[[y.value - y.low], [y.high - y.value]],
            fmt="o",
            capsize=3,
            label=name,
        )
    axes.set(
        xlabel="harmful requests answered (share, 95 % interval)",
        ylabel="harmless requests refused (share, 95 % interval)",
        xlim=(-0.03, 1.03),
        ylim=(-0.03, 1.03),
    )
    axes.grid(alpha=0.3)
    explain_above(axes)
    write_figure(figure, path, replace=False)


def draw_sweep(base: Trial, trials: Sequence[Trial], best: Trial, folder: Path) -> list[Path]:
    """Draw the figures of :func:`sweep_figures` into a folder, as PNG files with their names.

    Existing files are replaced.

    Raises:
        MissingExtraError: matplotlib is not installed.
        StorageError: a file cannot be written.
    """
    paths = []
    for name, figure in sweep_figures(base, trials, best).items():
        path = folder / f"{name}.png"
        write_figure(figure, path, replace=True)
        paths.append(path)
    return paths


def sweep_figures(base: Trial, trials: Sequence[Trial], best: Trial) -> dict[str, Figure]:
    """Make the figures of a sweep over any method; a figure with nothing to draw is left out.

    "rates" shows the harmful rate, the over-refusal rate and, if there are such replies, the
    misanswered rate against every number that was varied, except seeds. Lines are the mean over all
    trials with that value, with their range; the base's rate is a dotted line.
    "parameters" shows where the entries lie that the best trial's components are applied to.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    check_matplotlib()
    figures = {}
    if varied := _varied(trials):
        figures["rates"] = _draw_rates(base, trials, varied)
    if best.selected:
        figures["parameters"] = _draw_parameters(best.selected)
    return figures


def shares_of_entries(
    selected: Selected, group_of: Callable[[str], str]
) -> dict[str, dict[str, float]]:
    """Return, for each component, the share of its applied entries in each group of tensors."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for tensor in sorted(selected, key=natural_order):
        statistics = selected[tensor]
        applied = {
            name.removesuffix(_APPLIED): entries
            for name, entries in statistics.items()
            if name.endswith(_APPLIED)
        }
        for component, entries in (applied or statistics).items():
            counts[component][group_of(tensor)] += entries
    return {
        component: {group: entries / max(1, groups.total()) for group, entries in groups.items()}
        for component, groups in counts.items()
    }


def _varied(trials: Sequence[Trial]) -> list[str]:
    recipes = [trial.recipe for trial in trials if trial.recipe is not None]
    values = {name: [one.get(name) for one in recipes] for name in (recipes or [{}])[0]}
    return [
        name
        for name, given in values.items()
        if name != "seed"
        and all(type(value) in (int, float) for value in given)
        and len(set(given)) > 1
    ]


def _draw_rates(base: Trial, trials: Sequence[Trial], names: Sequence[str]) -> Figure:
    columns = min(len(names), _MOST_PANELS)
    rows = -(-len(names) // columns)
    figure = open_figure(4 * columns, 3.2 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes in panels[len(names) :]:
        axes.remove()
    panels = panels[: len(names)]
    misanswered = any(trial.misanswered.hits for trial in (base, *trials))
    rates = (*_RATES, _MISANSWERED) if misanswered else _RATES
    for axes, name in zip(panels, names, strict=True):
        for rate, colour in rates:
            _draw_rate(axes, base, trials, name, rate, colour)
        axes.set_xlabel(label(name))
        axes.set_ylim(-0.02, 1.02)
    for axes in panels[::columns]:
        axes.set_ylabel("rate, mean and range of trials")
    panels[0].plot([], [], color="black", linestyle=":", linewidth=1, label="base")
    explain_above(panels[0], columns=2)
    return figure


def _draw_rate(
    axes: Axes, base: Trial, trials: Sequence[Trial], name: str, rate: str, colour: str
) -> None:
    by_value: dict[float, list[float]] = defaultdict(list)
    for trial in trials:
        if trial.recipe is not None:
            by_value[trial.recipe[name]].append(getattr(trial, rate).value)
    values = sorted(by_value)
    found = [by_value[value] for value in values]
    means = [sum(rates) / len(rates) for rates in found]
    axes.plot(values, means, marker="o", color=colour, label=rate.replace("_", "-"))
    axes.fill_between(values, [*map(min, found)], [*map(max, found)], color=colour, alpha=0.15)
    axes.axhline(getattr(base, rate).value, color=colour, linestyle=":", linewidth=1)


def _draw_parameters(selected: Selected) -> Figure:
    figure = open_figure(10, 6)
    groupings = (("layer", layer_of), ("module", module_of))
    for axes, (title, group_of) in zip(figure.subplots(2, 1), groupings, strict=True):
        shares = shares_of_entries(selected, group_of)
        width = 0.8 / max(1, len(shares))
        labels: list[str] = []
        for number, (component, found) in enumerate(shares.items()):
            labels = list(found)
            places = [place + number * width for place in range(len(labels))]
            colour = _COMPONENTS.get(component)
            axes.bar(places, found.values(), width, color=colour, label=label(component))
        middle = (len(shares) - 1) * width / 2
        axes.set_xticks(
            [place + middle for place in range(len(labels))],
            [*map(label, labels)],
            rotation=45,
            ha="right",
        )
        axes.set(xlabel=title, ylabel="share of selected entries")
        if shares:
            explain_above(axes, columns=len(shares))
    return figure
