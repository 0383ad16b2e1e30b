"""Costs, shares and figures of a sweep, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sweep_inputs import trial_of

from patchc import Recipe
from patchc.evaluation.figures import shares_of_entries, sweep_figures
from patchc.evaluation.trials import cost
from patchc.recipe import find_recipe
from patchc.selection.candidates import layer_of, module_of


def test_the_cost_equals_values_by_hand() -> None:
    base = trial_of(4, 5)
    assert cost(base, base) == 1.0
    assert cost(trial_of(0, 0), base) == 0.0
    assert cost(trial_of(1, 1), base) == 0.25
    assert cost(trial_of(0, 0, utility=9), base) == pytest.approx(0.15)
    assert cost(trial_of(0, 0, degenerate=2), base) == pytest.approx(0.3)
    assert cost(trial_of(0, 10), base) == 2.0
    assert cost(trial_of(0, 2, misanswered=1), base) == pytest.approx(3 / 5 + 0.15)


def test_the_cost_where_the_base_has_rates_of_0() -> None:
    """A rise costs, more costs more, and neither rate hides the other or the rest."""
    base = trial_of(0, 5)
    assert cost(trial_of(0, 5), base) == 1.0
    assert cost(trial_of(1, 0), base) == pytest.approx(2)
    assert cost(trial_of(2, 0), base) == pytest.approx(4)
    assert cost(trial_of(2, 0, utility=9), base) == pytest.approx(4.15)
    assert cost(trial_of(0, 0), trial_of(0, 0)) == 0.0
    rise = cost(trial_of(0, 0, misanswered=1), trial_of(5, 0))
    assert rise == pytest.approx(2 + 0.15)


def counts(se: int, osm: int, overlap: int, applied: tuple[int, int]) -> dict[str, int]:
    top = {"se": se, "osm": osm, "overlap": overlap}
    return {**top, "se applied": applied[0], "osm applied": applied[1]}


def test_shares_equal_values_by_hand() -> None:
    selected = {
        "model.layers.10.mlp.up_proj.weight": counts(se=9, osm=9, overlap=4, applied=(5, 0)),
        "model.layers.2.mlp.up_proj.weight": counts(se=3, osm=3, overlap=2, applied=(1, 1)),
        "model.layers.2.mlp.experts.7.w1.weight": counts(se=4, osm=1, overlap=0, applied=(4, 1)),
    }
    assert shares_of_entries(selected, layer_of) == {
        "se": {"model.layers.2": 0.5, "model.layers.10": 0.5},
        "osm": {"model.layers.2": 1.0, "model.layers.10": 0.0},
    }
    assert shares_of_entries(selected, module_of) == {
        "se": {"mlp.experts.w1": 0.4, "mlp.up_proj": 0.6},
        "osm": {"mlp.experts.w1": 0.5, "mlp.up_proj": 0.5},
    }
    alone = {"a.0.b": {"osm": 3, "osm applied": 2}, "a.1.b": {"osm": 3, "osm applied": 0}}
    assert shares_of_entries(alone, layer_of) == {"osm": {"a.0": 1.0, "a.1": 0.0}}
    assert shares_of_entries({"a.0.b": {"model-0": 3}}, layer_of) == {"model-0": {"a.0": 1.0}}
    assert shares_of_entries({}, layer_of) == {}


def test_the_figures_show_values_by_hand() -> None:
    recipes = [Recipe(alpha=a, beta=b, seed=s) for a, b, s in ((4, 2, 0), (2, 2, 1), (2, 9, 2))]
    trials = [
        replace(trial_of(*rates), recipe=recipe.to_json(), selected=selected)
        for recipe, rates, selected in zip(
            recipes,
            ((1, 2), (2, 4), (6, 0)),
            (
                None,
                None,
                {"m.0.a.weight": counts(3, 3, 0, (1, 3)), "m.1.b": counts(3, 0, 0, (3, 0))},
            ),
            strict=True,
        )
    ]
    figures = sweep_figures(trial_of(7, 8), trials, trials[2])
    assert list(figures) == ["rates", "parameters"]
    alpha, beta = figures["rates"].axes
    assert (alpha.get_xlabel(), beta.get_xlabel()) == ("alpha", "beta")
    lines = [[list(map(float, data)) for data in line.get_data()] for line in alpha.lines]
    assert lines[0] == [[2, 4], [0.4, 0.1]]
    assert lines[1] == [[0, 1], [0.7, 0.7]]
    assert lines[2] == [[2, 4], [0.2, 0.2]]
    assert lines[3] == [[0, 1], [0.8, 0.8]]
    ranges = [area.get_paths()[0].vertices for area in alpha.collections]
    assert sorted({tuple(map(float, point)) for point in ranges[0]}) == [
        (2, 0.2),
        (2, 0.6),
        (4, 0.1),
    ]
    assert [float(y) for y in beta.lines[0].get_ydata()] == [pytest.approx(0.15), 0.6]
    layers, modules = figures["parameters"].axes
    assert [text.get_text() for text in layers.get_xticklabels()] == ["m.0", "m.1"]
    heights = [[bar.get_height() for bar in bars] for bars in layers.containers]
    assert heights == [[0.25, 0.75], [1, 0]]
    assert [text.get_text() for text in modules.get_xticklabels()] == ["a", "b"]


def test_the_figures_show_misanswered_replies_where_there_are_any() -> None:
    trials = [
        replace(trial_of(1, 2, misanswered=n), recipe=Recipe(alpha=n).to_json()) for n in (1, 3)
    ]
    (axes,) = sweep_figures(trial_of(1, 2), trials, trials[0])["rates"].axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["harmful", "over-refusal", "misanswered", "base"]
    assert list(map(float, axes.lines[4].get_ydata())) == [0.1, 0.3]


def test_figures_without_data_are_left_out() -> None:
    same = replace(trial_of(1, 2), recipe=find_recipe("ties").to_json())
    assert sweep_figures(trial_of(1, 2), [same], same) == {}
    assert sweep_figures(trial_of(1, 2), [], trial_of(1, 2)) == {}
