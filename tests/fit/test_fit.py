"""``patchc.fit``: what it writes is what it measured; resuming; limits; errors; command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from fit_inputs import says_ash, write_models, write_requests
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import patchc
from patchc import EvaluateOptions, FitOptions, Limit, Recipe
from patchc.cli.main import app
from patchc.errors import (
    DeriveError,
    EvaluateError,
    NumericError,
    OutputError,
    StorageError,
    UnfixedError,
    UsageError,
)
from patchc.evaluation.trials import cost
from patchc.fitting.search import Range
from patchc.recipe import MergeRecipe, Override, read_recipe
from patchc.verbs.fit import FitReport

ASKING = EvaluateOptions(judge=says_ash, max_new_tokens=5)
RECIPE = Recipe(retain=0.9, top_se=0.8, top_osm=0.8, alpha=1, beta=1, sets="union")
OPTIONS = FitOptions(steps=12, learning_rate=0.3, limits=(), best_effort=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_requests(tmp_path_factory.mktemp("requests"))


def run(models: Path, requests: dict[str, Path], out: Path, **more: Any) -> FitReport:
    named = {
        "se": models / "se",
        "osm": models / "osm",
        "recipe": RECIPE,
        "options": OPTIONS,
        "asking": ASKING,
        **requests,
        **more,
    }
    return patchc.fit(models / "base", out=out, **named)


@pytest.fixture(scope="module")
def fitted(
    models: Path, requests: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[FitReport, Path]:
    out = tmp_path_factory.mktemp("fitted") / "fix.patchc"
    return run(models, requests, out), out


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


def refuses_all(_prompts: Sequence[str], replies: Sequence[str]) -> list[bool]:
    return [True] * len(replies)


def refuses_none(_prompts: Sequence[str], replies: Sequence[str]) -> list[bool]:
    return [False] * len(replies)


def refuses_potions(prompts: Sequence[str], _replies: Sequence[str]) -> list[bool]:
    return ["potion" in prompt for prompt in prompts]


@pytest.mark.parametrize(
    ("judge", "error", "message"),
    [
        (refuses_all, EvaluateError, "calls every reply of the base a refusal"),
        (refuses_none, DeriveError, r"none of the base's \d+ replies is a refusal"),
        (refuses_potions, EvaluateError, "nothing to fit"),
    ],
    ids=["refuses all", "refuses none", "all right"],
)
def test_requests_that_teach_nothing_are_refused(
    judge: Any, error: type[Exception], message: str, models: Path, requests: dict[str, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    with pytest.raises(error, match=message):
        run(models, requests, tmp_path / "fix.patchc", asking=replace(ASKING, judge=judge))
    assert not (tmp_path / "fix.patchc").exists()


def test_too_few_requests_say_how_many_are_enough(
    models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(EvaluateError, match=r"3 harmful requests are too few .* at least 16"):
        run(models, requests, tmp_path / "fix.patchc", asking=replace(ASKING, limit=3))


def test_an_existing_output_is_refused_before_anything_is_asked(
    models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "fix.patchc"
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        run(models, requests, out)
    assert out.read_text() == "mine"


def test_a_trace_of_another_tokenizer_s_base_is_refused(
    fitted: tuple[FitReport, Path], models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(models, tmp_path / "models")
    (tmp_path / "models/base/generation_config.json").write_text('{"eos_token_id": 3}')
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(fitted[1].with_suffix(".fit.jsonl").read_bytes())
    with pytest.raises(EvaluateError, match="other inputs"):
        run(tmp_path / "models", requests, tmp_path / "fix.patchc", trace=trace)


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


@pytest.mark.parametrize("named", ["recipe_out", "out"])
def test_a_folder_is_no_output(
    models: Path, requests: dict[str, Path], tmp_path: Path, named: str
) -> None:
    (tmp_path / "folder").mkdir()
    outputs = {"out": tmp_path / "fix.patchc", named: tmp_path / "folder"}
    with pytest.raises(OutputError, match="is a folder"):
        run(models, requests, **outputs)


def test_a_trace_in_the_base_is_refused(
    models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="lies inside the input"):
        run(models, requests, tmp_path / "fix.patchc", trace=models / "base/trace.jsonl")


def test_a_trace_of_other_scores_is_refused(
    fitted: tuple[FitReport, Path], models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(fitted[1].with_suffix(".fit.jsonl").read_bytes())
    other = tmp_path / "se"
    shutil.copytree(models / "se", other)
    scores = load_file(other / "scores.safetensors")
    save_file({name: 1 - value for name, value in scores.items()}, other / "scores.safetensors")
    with pytest.raises(EvaluateError, match="other inputs"):
        run(models, requests, tmp_path / "fix.patchc", trace=trace, se=other)


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


def test_mistakes_are_told_before_anything_is_asked(
    models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "fix.patchc"
    with pytest.raises(UsageError, match="three files"):
        run(models, requests, out, recipe_out=out)
    with pytest.raises(UsageError, match="three files"):
        run(models, requests, out, trace=tmp_path / "fix.toml")
    with pytest.raises(UsageError, match="written as TOML"):
        run(models, requests, out, recipe_out=tmp_path / "fix.yaml")
    asked = replace(OPTIONS, limits=(Limit("perplexity", 1.0, relative=True),))
    with pytest.raises(UsageError, match="needs a reference text"):
        run(models, requests, out, options=asked)
    with pytest.raises(UsageError, match="must be a text that is not empty"):
        FitOptions(openings=(" ",))
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_fitted_leaves_no_patch(
    models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    out, other = tmp_path / "fix.patchc", tmp_path / "other.patchc"
    uneven = replace(RECIPE, overrides=(Override("layers.0", alpha=2.0),))
    with pytest.raises(UsageError, match="scales of their own"):
        run(models, requests, out, recipe=uneven, options=replace(OPTIONS, sharing="global"))
    with pytest.raises(NumericError, match="lower the learning rate"):
        run(models, requests, other, options=replace(OPTIONS, learning_rate=1e22))
    assert not out.exists()
    assert not other.exists()


def test_named_openings_tell_how_many_refusals_begin_so(
    models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    options = replace(OPTIONS, steps=1, openings=("tea",))
    try:
        report = run(models, requests, tmp_path / "fix.patchc", options=options)
    except UnfixedError as error:
        report = cast(FitReport, error.report)
    assert report.fitted.openings == ("tea",)
    assert report.fitted.covered < 1


def test_limits_are_read_and_applied() -> None:
    points, share = Limit.parse("utility=-2"), Limit.parse("perplexity=+2%")
    assert points.allows(0.66, 0.64)
    assert not points.allows(0.66, 0.63)
    assert share.allows(44.8, 45.6)
    assert not share.allows(44.8, 45.8)
    assert Limit.parse("misanswered=1").allows(0.0, 0.01)
    for text in ("utility=2", "perplexity=2", "harm=1", "utility", "perplexity=-2%"):
        with pytest.raises(UsageError):
            Limit.parse(text)


def test_the_command_writes_the_same_patch(
    fitted: tuple[FitReport, Path], models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    out, recipe = tmp_path / "fix.patchc", tmp_path / "start.toml"
    patchc.recipe.write_recipe(RECIPE, recipe)  # type: ignore[attr-defined]
    arguments = [
        "fit", models / "base", "--se", models / "se", "--osm", models / "osm", "-o", out,
        "--recipe", recipe, "--judge", "fit_inputs:says_ash", "--max-new-tokens", 5,
        "--budget", 12, "--learning-rate", 0.3, "--limit", "degenerate=+100", "--best-effort",
        "--figure", tmp_path / "fit.png", "--json", "--dtype", "bfloat16", "--device", "cpu",
        "--ask-batch-size", 64,
        *(part for name, path in requests.items() for part in (f"--{name}", path)),
    ]  # fmt: skip
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["out"] == str(out)
    assert out.read_bytes() == fitted[1].read_bytes()
    assert (tmp_path / "fit.png").stat().st_size > 1000
    base, chosen = found["kinds"]["base"], found["kinds"]["chosen"]
    assert set(base["harmful"]) == {"how", "mix", "a", "brew"}
    for kinds, name in ((base, "base"), (chosen, "best")):
        measured = getattr(fitted[0].fitted, name)
        trial = measured if name == "base" else measured.trial
        assert sum(rate["hits"] for rate in kinds["harmful"].values()) == trial.harmful.hits


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"limits": ("utility=-2",)}, r"limits is .*'utility=-2'.* it must be a list of Limit"),
        ({"limits": "utility=-2"}, "list of Limit"),
        ({"limits": None}, "list of Limit"),
        ({"best_effort": "no"}, "best_effort is 'no'; it must be True or False"),
        ({"shrinkage": float("inf")}, "shrinkage is inf; it must be a finite number, at least 0"),
        ({"anchor_weight": -1.0}, "anchor_weight is -1.0; it must be a finite number, at least 0"),
        ({"target": 0.0}, "target is 0.0; it must be a finite number above 0"),
        ({"batch_size": 3}, "batch_size is 3; it must be an even number of at least 2"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"openings": ("no", "\udcff")}, "openings: .* holds half a character"),
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FitOptions(**wrong)


def test_a_limit_is_a_finite_number() -> None:
    wrong: list[tuple[Any, ...]] = [
        ("utility", "-2"), ("utility", float("nan")), ("degenerate", True),
        ("perplexity", 2.0, "yes"),
    ]  # fmt: skip
    for arguments in wrong:
        with pytest.raises(UsageError, match=f"limit {arguments[0]}: (change|relative)"):
            Limit(*arguments)


def command(models: Path, requests: dict[str, Path], out: Path, *more: object) -> list[str]:
    arguments = [
        "fit", models / "base", "--se", models / "se", "--osm", models / "osm", "-o", out,
        "--judge", "fit_inputs:says_ash", "--max-new-tokens", 5, *more,
        *(part for name, path in requests.items() for part in (f"--{name}", path)),
    ]  # fmt: skip
    return list(map(str, arguments))


@pytest.mark.parametrize("budget", ["9" * 5000, "9" * 5000 + "m", "60s", "1.5"])
def test_a_budget_that_is_none_is_refused(
    budget: str, models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    arguments = command(models, requests, tmp_path / "fix.patchc", "--budget", budget)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == UsageError.exit_code
    assert "give steps (60) or minutes (10m)" in result.stderr
    assert len(result.stderr) < 250


def test_paths_that_cannot_work_are_refused_before_anything_is_asked(
    models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    out = tmp_path / "fix.patchc"
    for arguments in (
        command(models, requests, taken / "fix.patchc"),
        command(models, requests, out, "--recipe-out", taken / "fix.toml"),
        command(models, requests, out, "--figure", taken / "deep/fit.png"),
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == OutputError.exit_code
        assert f"lies below {taken}, which is no folder" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("drawn", [True, False], ids=["drawn", "disk full"])
def test_without_a_fitting_point_the_command_shows_and_draws_what_it_tried(
    drawn: bool, models: Path, requests: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    figure = tmp_path / "fit.png"
    recipe = tmp_path / "start.toml"
    patchc.recipe.write_recipe(  # type: ignore[attr-defined]
        replace(RECIPE, alpha=1e-9, beta=1e-9), recipe
    )
    if not drawn:

        def full(_fitted: object, path: Path) -> None:
            raise StorageError(f"cannot write {path}: the disk is full")

        monkeypatch.setattr("patchc.fitting.picture.draw_fit", full)
    arguments = command(
        models, requests, tmp_path / "fix.patchc", "--recipe", recipe, "--figure", figure,
        "--budget", 1, "--learning-rate", 1e-9, "--json",
    )  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == UnfixedError.exit_code, result.output
    assert json.loads(result.stdout)["fitted"]["best"] is None
    assert figure.exists() == drawn
    assert ("warning: cannot write" in result.stderr) != drawn


def test_the_report_is_printed_before_the_picture_fails(
    fitted: tuple[FitReport, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(_fitted: object, path: Path) -> None:
        raise StorageError(f"cannot write {path}: the disk is full")

    monkeypatch.setattr("patchc.fit", lambda *_arguments, **_options: fitted[0])
    monkeypatch.setattr("patchc.fitting.picture.draw_fit", full)
    arguments = command(tmp_path, {"harmful": tmp_path, "harmless": tmp_path}, tmp_path / "f")
    result = CliRunner().invoke(app, [*arguments, "--figure", str(tmp_path / "fit.png"), "--json"])
    assert result.exit_code == StorageError.exit_code
    assert json.loads(result.stdout)["out"] == str(fitted[1])
