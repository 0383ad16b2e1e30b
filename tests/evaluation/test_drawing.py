"""Figures: every axis has a label, and no legend covers data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from patchc.evaluation.figures import plot, sweep_figures
from patchc.evaluation.measure import Evaluation
from patchc.evaluation.rates import Rate
from patchc.evaluation.trials import Trial
from patchc.fitting.choice import Candidate
from patchc.fitting.fitted import Fitted
from patchc.fitting.picture import draw_fit

if TYPE_CHECKING:
    from collections.abc import Iterable


def trial(harmful: int, refused: int, **recipe: object) -> Trial:
    rates = {"harmful": harmful, "over_refusal": refused, "misanswered": 1, "degenerate": 0}
    measured = {name: Rate(hits, 40) for name, hits in rates.items()}
    selected = {
        f"model.layers.{layer}.{module}.weight": {
            "se": 60,
            "osm": 70,
            "se applied": 40 + layer,
            "osm applied": 60,
        }
        for layer in range(16)
        for module in ("self_attn.q_proj", "mlp.up_proj")
    }
    return Trial(
        recipe=recipe or None, utility=None, perplexity=None, selected=selected, **measured
    )


def legible(figure: Figure) -> None:
    """Each axis says what it shows, and legends are beside the axes, within the figure."""
    figure.draw_without_rendering()
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    assert legends
    for axes in figure.axes:
        assert axes.get_xlabel()
        if axes.get_subplotspec().is_first_col():
            assert axes.get_ylabel()
        for legend in legends:
            assert not legend.get_window_extent().overlaps(axes.get_window_extent())
    for legend in legends:
        low, high = figure.bbox.get_points(), legend.get_window_extent().get_points()
        assert (low[0] <= high[0]).all()
        assert (high[1] <= low[1]).all()


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *arguments: object, **named: object) -> None:
        figures.append(self)
        save(self, *arguments, **named)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


@pytest.mark.parametrize("folder", ["models", "/" + "a_folder_that_holds_a_folder/" * 7])
@pytest.mark.parametrize("models", [1, 2, 6])
def test_the_plot_of_an_evaluation(
    tmp_path: Path, saved: list[Figure], models: int, folder: str
) -> None:
    found = [
        Evaluation(
            f"{folder}/a-rather-long-name-of-a-chat-model-{number}", "", "", Rate(6 * number, 40),
            Rate(40 - 6 * number, 40), Rate(0, 40), None, Rate(0, 120),
        )
        for number in range(models)
    ]  # fmt: skip
    plot(found, tmp_path / "rates.png")
    legible(*saved)


@pytest.mark.parametrize("varied", [("alpha",), ("alpha", "beta", "retain", "top_se", "top_osm")])
def test_the_figures_of_a_sweep(varied: Iterable[str]) -> None:
    trials = [
        trial(30 - 3 * n, 5 + 2 * n, seed=n % 2, **dict.fromkeys(varied, 1.0 + n // 2))
        for n in range(8)
    ]
    figures = sweep_figures(trial(38, 20), trials, trials[-1])
    assert figures.keys() == {"rates", "parameters"}
    for figure in figures.values():
        legible(figure)


def test_the_picture_of_a_fit(tmp_path: Path, saved: list[Figure]) -> None:
    points = [
        Candidate(step, trial(30 - step, 20 - step), 1.0 / (1 + step), 0.9, (), ())
        for step in (0, 5, 10, 15, 20)
    ]
    losses = [(step, 3.0 / (1 + step), 3.2 / (1 + step) if not step % 5 else None)
              for step in range(21)]  # fmt: skip
    fitted = Fitted(
        trial(38, 20), tuple(points), points[-1], None, ("I",), 1.0, 20, 9.0, "all steps taken",
        tuple(losses),
    )  # fmt: skip
    draw_fit(fitted, tmp_path / "fit.png")
    legible(*saved)
