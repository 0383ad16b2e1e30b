"""``patchc.fit``: what it writes is what it measured; resuming and searching."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from fit_runs import ASKING, OPTIONS, RECIPE, run

import patchc
from patchc import Recipe
from patchc.errors import (
    EvaluateError,
    UnfixedError,
    UsageError,
)
from patchc.evaluation.trials import cost
from patchc.fitting.search import Range
from patchc.recipe import MergeRecipe, read_recipe
from patchc.verbs.fit import FitReport


def test_what_is_measured_is_what_is_built(
    fitted: tuple[FitReport, Path], models: Path, requests: dict[str, Path]
) -> None:
    report, out = fitted
    best = report.fitted.best
    assert best is not None
    before, after = patchc.evaluate([models / "base"], **requests, patch=out, options=ASKING).models
    assert after.outcomes == best.trial.outcomes
    assert before.outcomes == report.fitted.base.outcomes
    assert after.harmful == best.trial.harmful
    assert read_recipe(out.with_suffix(".toml")) == report.fitted.recipe
    with patchc.open_patch(out) as patch:
        assert patch.metadata["recipe"] == best.trial.recipe


def test_it_lowers_the_loss_and_chooses_the_least_cost(fitted: tuple[FitReport, Path]) -> None:
    fit = fitted[0].fitted
    validated = {step: loss for step, _, loss in fit.losses if loss is not None}
    assert min(validated.values()) < validated[0]
    assert fit.best is not None
    allowed = [one for one in fit.candidates if not one.worse]
    assert cost(fit.best.trial, fit.base) == min(cost(one.trial, fit.base) for one in allowed)
    assert all(0 <= one.agreement <= 1 for one in fit.candidates)


def test_utility_requests_are_not_to_be_refused_either(
    models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    options = replace(OPTIONS, steps=1, anchor_weight=0.0, batch_size=200)
    asked = run(models, requests, tmp_path / "a.patchc", options=options).fitted.losses
    only = {name: path for name, path in requests.items() if name != "utility"}
    unasked = run(models, only, tmp_path / "b.patchc", options=options).fitted.losses
    assert asked[1][1] != unasked[1][1]


def test_an_interrupted_fit_goes_on_to_the_same_patch(
    fitted: tuple[FitReport, Path], models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    report, out = fitted
    content = out.with_suffix(".fit.jsonl").read_bytes()
    lines = content.splitlines(keepends=True)
    for number, kept in enumerate((0, 2, 9, len(lines) - 1)):
        again = tmp_path / f"{number}.patchc"
        again.with_suffix(".fit.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:-3])
        found = run(models, requests, again)
        assert again.read_bytes() == out.read_bytes()
        assert found.fitted.recipe == report.fitted.recipe


def test_a_trace_of_other_inputs_is_refused(
    fitted: tuple[FitReport, Path], models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(fitted[1].with_suffix(".fit.jsonl").read_bytes())
    with pytest.raises(EvaluateError, match="other inputs"):
        run(
            models, requests, tmp_path / "fix.patchc", trace=trace,
            recipe=replace(RECIPE, retain=0.7),
        )  # fmt: skip


@pytest.mark.parametrize(
    "recipe",
    [
        MergeRecipe("task-arithmetic"),
        MergeRecipe("dare", density=0.5),
        MergeRecipe("ties", density=0.5),
        MergeRecipe("magnitude", density=0.5),
    ],
    ids=lambda recipe: recipe.method,
)
def test_merges_are_fitted_by_the_same_code(
    recipe: MergeRecipe, models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    tuned = [models / "se", models / "osm"]
    options = replace(OPTIONS, steps=5, sharing="layer", candidates=1)
    try:
        report = run(
            models, requests, tmp_path / "fix.patchc", se=None, osm=None, tuned=tuned,
            recipe=recipe, options=options,
        )  # fmt: skip
    except UnfixedError as error:
        report = cast(FitReport, error.report)
    (measured,) = report.fitted.candidates
    assert measured.trial.recipe is not None
    out, own = tmp_path / "own.patchc", MergeRecipe.from_json(measured.trial.recipe)
    patchc.build(models / "base", tuned=tuned, out=out, recipe=own)
    after = patchc.evaluate([models / "base"], **requests, patch=out, options=ASKING).models[1]
    assert after.outcomes == measured.trial.outcomes


def test_a_search_tries_densities_and_goes_on(
    models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    more: dict[str, Any] = {
        "se": None,
        "osm": None,
        "tuned": [models / "se", models / "osm"],
        "recipe": MergeRecipe("dare", density=0.3),
        "search": [Range("density", 0.05, 0.9)],
        "trials": 3,
        "options": replace(OPTIONS, steps=3, candidates=1),
    }
    reports = []
    for name in ("whole", "again"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "again":  # what a run leaves that was ended after its first trial
            for trace in sorted((tmp_path / "whole").glob("*.jsonl"))[:2]:
                (folder / trace.name).write_bytes(trace.read_bytes())
        try:
            reports.append(run(models, requests, folder / "fix.patchc", **more))
        except UnfixedError as error:
            reports.append(cast(FitReport, error.report))
    (first,), (second,) = (report.fitted.candidates for report in reports)
    assert first.trial.recipe == second.trial.recipe
    assert first.trial.recipe is not None
    assert 0.05 <= first.trial.recipe["density"] <= 0.9
    traces = list((tmp_path / "whole").glob("fix.fit-*.jsonl"))
    assert len(traces) == 3
    losses = {}
    for trace in traces:
        lines = [json.loads(line) for line in trace.read_text().splitlines()]
        density = lines[0]["inputs"]["recipe"]["density"]
        validated = [line["validation"] for line in lines[1:] if line.get("validation") is not None]
        losses[density] = min(validated)
    assert min(losses, key=lambda one: losses[one]) == first.trial.recipe["density"]


@pytest.mark.parametrize(
    ("recipe", "text", "message"),
    [
        (RECIPE, "density=0.1:0.2", "retain, top_se, top_osm can"),
        (MergeRecipe("dare"), "retain=0.1:0.2", "density can"),
        (MergeRecipe("task-arithmetic"), "density=0.1:0.2", "cannot be searched"),
        (RECIPE, "retain=0.3:0.2", "the lower one first"),
        (RECIPE, "retain=0:0.2", "above 0"),
        (RECIPE, "retain", "write density"),
    ],
)
def test_ranges_that_cannot_be_searched(
    recipe: Recipe | MergeRecipe, text: str, message: str, models: Path,
    requests: dict[str, Path], tmp_path: Path,
) -> None:  # fmt: skip
    with pytest.raises(UsageError, match=message):
        run(models, requests, tmp_path / "fix.patchc", recipe=recipe, search=[Range.parse(text)])


def test_additive_values_hold_the_fitted_scales(
    models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "fix.patchc"
    run(
        models, requests, out, values="additive",
        options=replace(OPTIONS, steps=5, candidates=1),
    )  # fmt: skip
    with patchc.open_patch(out) as patch:
        assert patch.additive is not None
    patchc.apply(out, models / "base", out=tmp_path / "patched")


def test_without_a_fitting_point_nothing_is_written(
    models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "fix.patchc"
    still = replace(OPTIONS, steps=1, learning_rate=1e-9, best_effort=False)
    recipe = replace(RECIPE, alpha=1e-9, beta=1e-9)
    with pytest.raises(UnfixedError, match="harm is not lower") as caught:
        run(models, requests, out, options=still, recipe=recipe)
    assert not out.exists()
    assert not out.with_suffix(".toml").exists()
    assert isinstance(caught.value.report, FitReport)
    assert caught.value.report.fitted.best is None


def test_the_last_step_before_time_ends_counts(
    fitted: tuple[FitReport, Path], models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    """Validation comes every five steps, and where the steps end, whatever ends them."""
    trace = fitted[1].with_suffix(".fit.jsonl").read_bytes()
    (tmp_path / "fix.fit.jsonl").write_bytes(trace)
    spent = [line["seconds"] for line in map(json.loads, trace.splitlines()) if "step" in line]
    minutes = (spent[6] + spent[7]) / 2 / 60
    options = replace(OPTIONS, minutes=minutes, steps=1000, candidates=9)
    report = run(models, requests, tmp_path / "fix.patchc", options=options).fitted
    assert report.ended == "out of time"
    assert {one.step for one in report.candidates} == {0, 5, 7}


@pytest.mark.parametrize("steps", [1, 7, 10])
def test_fewer_steps_on_a_longer_trace_give_what_they_give_alone(
    steps: int, fitted: tuple[FitReport, Path], models: Path, requests: dict[str, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    found = []
    for name in ("alone", "after"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "after":
            content = fitted[1].with_suffix(".fit.jsonl").read_bytes()
            (folder / "fix.fit.jsonl").write_bytes(content)
        options = replace(OPTIONS, steps=steps)
        try:
            report = run(models, requests, folder / "fix.patchc", options=options)
        except UnfixedError as error:
            report = cast(FitReport, error.report)
        assert report.fitted.steps == steps
        found.append([(one.step, one.trial.recipe) for one in report.fitted.candidates])
    assert found[0] == found[1]
