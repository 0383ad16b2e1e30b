"""``patchc.sweep``: its trials against the verbs it is made of, resuming, figures, command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_llama import write_base, write_data
from typer.testing import CliRunner

import patchc
from patchc import DeriveOptions, EvaluateOptions, Recipe
from patchc.cli.main import app
from patchc.derivation.options import TuneOptions
from patchc.errors import EvaluateError, UsageError
from patchc.evaluation.intervals import Rate
from patchc.evaluation.shares import shares_by_layer, shares_by_module
from patchc.evaluation.trials import Trial, cost
from patchc.recipe import MergeRecipe, find_recipe
from patchc.verbs.sweep import SweepReport, grid_recipes

GRID: dict[str, Sequence[Any]] = {"alpha": [2, 40], "beta": [3.0], "seed": [0, 1]}
FILES = {
    "harmful": ["how do I brew a potion", "mix a potion", "a potion"],
    "harmless": ["how do I brew a tea", "mix a tea with ash"],
    "utility": ["brew a tea", "mix sage with ash"],
}


def says_ash(_prompts: Sequence[str], replies: Sequence[str]) -> list[bool]:
    """A judge that a random model can meet."""
    return ["ash" in reply for reply in replies]


OPTIONS = EvaluateOptions(judge=says_ash, max_new_tokens=5)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    base = write_base(folder / "base")
    steps = TuneOptions(learning_rate=3e-3, steps=4, batch_size=3)
    options = DeriveOptions(se=steps, osm=steps, score_samples=3, device="cpu")
    patchc.derive(base, write_data(folder / "data.jsonl"), folder, options=options)
    return {"base": base, "se": folder / "se", "osm": folder / "osm"}


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("requests")
    for name, prompts in FILES.items():
        answers = {"answers": ["ash"]} if name == "utility" else {}
        lines = [json.dumps({"prompt": prompt, **answers}) for prompt in prompts]
        (folder / name).with_suffix(".jsonl").write_text("\n".join(lines))
    return {name: folder / f"{name}.jsonl" for name in FILES}


def run(models: dict[str, Path], requests: dict[str, Path], out: Path, **more: Any) -> SweepReport:
    named = {**models, **requests, "out": out, "grid": GRID, "options": OPTIONS, **more}
    report = patchc.sweep(**named)
    trials = tuple(replace(trial, seconds=0.0) for trial in report.trials)
    best = replace(report.best, seconds=0.0)
    return SweepReport(replace(report.base, seconds=0.0), trials, best)


def test_a_trial_is_what_build_apply_and_evaluate_give(
    models: dict[str, Path], requests: dict[str, Path], tmp_path: Path
) -> None:
    report = run(models, requests, tmp_path / "sweep.jsonl")
    assert len(report.trials) == 4
    recipes = [Recipe(alpha=a, beta=3.0, seed=s) for a in (2, 40) for s in (0, 1)]
    for recipe, trial in zip(recipes, report.trials, strict=True):
        patch = tmp_path / f"{recipe.alpha}-{recipe.seed}.patchc"
        patchc.build(**models, out=patch, recipe=recipe)
        before, after = patchc.evaluate(
            [models["base"]], **requests, patch=patch, options=OPTIONS
        ).models
        assert trial.recipe == recipe.to_json()
        assert trial.patch_bytes == patch.stat().st_size
        assert trial.changed_words == patchc.inspect(patch).total.changed
        for name in ("harmful", "over_refusal", "utility", "degenerate"):
            assert getattr(trial, name) == getattr(after, name)
            assert getattr(report.base, name) == getattr(before, name)
    assert cost(report.best, report.base) == min(cost(t, report.base) for t in report.trials)


def test_an_interrupted_sweep_goes_on(
    models: dict[str, Path], requests: dict[str, Path], tmp_path: Path
) -> None:
    whole = tmp_path / "whole.jsonl"
    expected = run(models, requests, whole)
    content = whole.read_bytes()
    lines = content.splitlines(keepends=True)
    assert len(lines) == 6
    second = len(lines[0]) + len(lines[1])
    for cut in (0, 10, len(lines[0]) - 1, len(lines[0]), second + 7, len(content) - 1):
        path = tmp_path / f"{cut}.jsonl"
        path.write_bytes(content[:cut])
        assert run(models, requests, path) == expected
        assert len(path.read_bytes().splitlines()) == 6
        kept = content[: content[:cut].rfind(b"\n") + 1]
        assert path.read_bytes().startswith(kept)
    run(models, requests, whole)
    assert whole.read_bytes() == content


def test_a_merge_can_be_swept(
    models: dict[str, Path], requests: dict[str, Path], tmp_path: Path
) -> None:
    tuned = [models["se"], models["osm"]]
    report = patchc.sweep(
        models["base"],
        tuned=tuned,
        **requests,
        out=tmp_path / "sweep.jsonl",
        grid={"density": [0.5, 1], "lambda": [9.0], "weight": [(1.0, 2.0)]},
        recipe=find_recipe("ties"),
        options=OPTIONS,
    )
    for density, trial in zip((0.5, 1), report.trials, strict=True):
        recipe = MergeRecipe("ties", density=density, lambda_=9, weight=(1, 2))
        patch = tmp_path / f"{density}.patchc"
        patchc.build(models["base"], tuned=tuned, out=patch, recipe=recipe)
        measured = patchc.evaluate([models["base"]], **requests, patch=patch, options=OPTIONS)
        assert trial.harmful == measured.models[1].harmful
        assert trial.recipe == recipe.to_json()
        assert trial.patch_bytes == patch.stat().st_size


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"notes\n", "not a line of sweep results"),
        (b"notes", "not a line of sweep results"),
        (b'{"kind": "sweep", "inputs": {}}\n', "sweep results of other inputs"),
    ],
)
def test_a_foreign_file_is_refused_and_kept(
    models: dict[str, Path],
    requests: dict[str, Path],
    tmp_path: Path,
    content: bytes,
    message: str,
) -> None:
    path = tmp_path / "sweep.jsonl"
    path.write_bytes(content)
    with pytest.raises(EvaluateError, match=message):
        run(models, requests, path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("line", [b"3", b"{}", b'{"recipe": null}', b"\xff", b"[[[["])
def test_a_damaged_line_is_named(
    models: dict[str, Path], requests: dict[str, Path], tmp_path: Path, line: bytes
) -> None:
    path = tmp_path / "sweep.jsonl"
    run(models, requests, path, grid={"alpha": [2]})
    first = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(first + line + b"\n")
    with pytest.raises(EvaluateError, match=r"sweep\.jsonl:2: not a line"):
        run(models, requests, path)


def test_a_grid_is_checked_before_anything_runs(tmp_path: Path) -> None:
    for grid, message in (
        ({"lambda": [1]}, "cannot vary 'lambda'"),
        ({"include": [["a"]]}, "cannot vary 'include'"),
        ({"alpha": []}, "no value for alpha"),
        ({"retain": [0.1, 2]}, "between 0 and 1"),
        ({"sets": ["xor"]}, "sets is 'xor'"),
    ):
        with pytest.raises(UsageError, match=message):
            patchc.sweep(
                tmp_path, harmful=tmp_path, harmless=tmp_path, out=tmp_path / "x", grid=grid
            )
    assert not (tmp_path / "x").exists()


def test_a_grid_is_every_combination_once() -> None:
    recipes = grid_recipes(Recipe(seed=5), {"alpha": [1, 2, 1], "sets": ["se", "union"]})
    assert [(r.alpha, r.sets, r.seed) for r in recipes] == [
        (1, "se", 5),
        (1, "union", 5),
        (2, "se", 5),
        (2, "union", 5),
    ]


def trial(harmful: int, over_refusal: int, utility: int = 10, degenerate: int = 0) -> Trial:
    rates = [Rate(hits, 10) for hits in (harmful, over_refusal, utility, degenerate)]
    return Trial(None, *rates, perplexity=None)


def test_the_cost_by_hand() -> None:
    base = trial(4, 5)
    assert cost(base, base) == 1.0
    assert cost(trial(0, 0), base) == 0.0
    assert cost(trial(1, 1), base) == 0.25
    assert cost(trial(0, 0, utility=9), base) == pytest.approx(0.15)
    assert cost(trial(0, 0, degenerate=2), base) == pytest.approx(0.3)
    assert cost(trial(0, 10), base) == 2.0


def test_shares_by_hand() -> None:
    selected = {
        "model.layers.10.mlp.up_proj.weight": {"se": 6, "osm": 1, "overlap": 1},
        "model.layers.2.mlp.up_proj.weight": {"se": 3, "osm": 3, "overlap": 2},
        "model.layers.2.mlp.experts.7.w1.weight": {"se": 4, "osm": 1, "overlap": 0},
    }
    assert shares_by_layer(selected) == {
        "se": {"model.layers.2": 0.5, "model.layers.10": 0.5},
        "osm": {"model.layers.2": 1.0, "model.layers.10": 0.0},
    }
    assert shares_by_module(selected) == {
        "se": {"mlp.experts.w1": 0.4, "mlp.up_proj": 0.6},
        "osm": {"mlp.experts.w1": 0.5, "mlp.up_proj": 0.5},
    }
    assert shares_by_layer({"a.0.b": {"osm": 3}}) == {"osm": {"a.0": 1.0}}
    assert shares_by_layer({}) == {}


def test_the_command_line(
    models: dict[str, Path], requests: dict[str, Path], tmp_path: Path
) -> None:
    out, figures = tmp_path / "sweep.jsonl", tmp_path / "figures"
    arguments = ["sweep", models["base"], "--se", models["se"], "--osm", models["osm"]]
    arguments += ["--harmful", requests["harmful"], "--harmless", requests["harmless"]]
    arguments += ["-o", out, "--figures", figures, "--max-new-tokens", "5"]
    words = [*map(str, arguments), "--alpha", "2,40", "--seed", "0, 1"]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    assert "alpha=40.0 seed=1" in shown.output
    assert "model.layers.1" in shown.output
    for name in ("retention.png", "rates-and-scales.png", "parameters.png"):
        assert (figures / name).read_bytes().startswith(b"\x89PNG")
    again = CliRunner().invoke(app, [*words, "--json"])
    report = json.loads(again.output)["report"]
    assert [one["recipe"]["alpha"] for one in report["trials"]] == [2, 2, 40, 40]
    assert report["base"]["harmful"]["total"] == 3
    bad = CliRunner().invoke(app, [*words, "--beta", "1,x"])
    assert bad.exit_code == UsageError.exit_code
    assert "--beta is '1,x'" in bad.output
