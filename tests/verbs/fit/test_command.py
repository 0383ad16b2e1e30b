"""``patchc fit``: its options, output and exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from fit_runs import OPTIONS, RECIPE, run
from typer.testing import CliRunner

import patchc
from patchc import FitOptions, Limit
from patchc.cli.main import app
from patchc.errors import (
    OutputError,
    StorageError,
    UnfixedError,
    UsageError,
)
from patchc.verbs.fit import FitReport


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
        ({"best_effort": "no"}, "best_effort is 'no'; it must be true or false"),
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
