"""``patchc.sweep``: its trials against the verbs it is made of, resuming, and grids."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fit_inputs import says_ash
from safetensors.numpy import load_file, save_file
from sweep_inputs import FILES, trial_of
from tiny_llama import TEMPLATE, write_data

import patchc
from patchc import EvaluateOptions, Recipe
from patchc.errors import EvaluateError, MismatchError, UsageError
from patchc.evaluation.figures import sweep_figures
from patchc.evaluation.trials import cost, open_trials
from patchc.recipe import MergeRecipe, find_recipe
from patchc.verbs.sweep import SweepReport, grid_recipes

GRID: dict[str, Sequence[Any]] = {"alpha": [2, 40], "beta": [3.0], "seed": [0, 1]}


OPTIONS = EvaluateOptions(judge=says_ash, max_new_tokens=5)


def run(models: dict[str, Path], requests: dict[str, Path], out: Path, **more: Any) -> SweepReport:
    named = {**models, **requests, "out": out, "grid": GRID, "options": OPTIONS, **more}
    report = patchc.sweep(**named)
    assert type(report) is SweepReport
    trials = tuple(replace(trial, seconds=0.0) for trial in report.trials)
    best = replace(report.best, seconds=0.0)
    return SweepReport(replace(report.base, seconds=0.0), trials, best, report.kinds)


def test_a_trial_is_what_build_apply_and_evaluate_give(
    models: dict[str, Path],
    requests: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patching:
        # A policy that cannot be satisfied: a sweep tries only what it has made itself.
        patching.setenv("PATCHC_POLICY", str(tmp_path / "gone.toml"))
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
        for name in (
            "harmful", "over_refusal", "misanswered", "utility", "degenerate", "outcomes",
        ):  # fmt: skip
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


def test_all_trials_of_a_file_are_ranked(
    models: dict[str, Path], requests: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "sweep.jsonl"
    first = run(models, requests, out)
    kept = out.read_bytes()
    second = run(models, requests, out, grid={"alpha": [40], "beta": [3.0], "seed": [1, 7]})
    assert out.read_bytes().startswith(kept)
    assert len(out.read_bytes().splitlines()) == len(kept.splitlines()) + 1
    recipes = [(one.recipe or {})["alpha"] for one in second.trials]
    seeds = [(one.recipe or {})["seed"] for one in second.trials]
    assert list(zip(recipes, seeds, strict=True)) == [(40, 1), (40, 7), (2, 0), (2, 1), (40, 0)]
    assert second.trials[0] == first.trials[3]
    assert second.trials[2:] == first.trials[:3]
    ranked = second.ranked()
    costs = [cost(one, second.base) for one in ranked]
    assert costs == sorted(costs)
    assert second.best == ranked[0]


def test_trials_that_an_earlier_version_wrote_are_read(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    with open_trials(path, {}) as trials:
        trials.add(trial_of(1, 2))
    first, line = path.read_text().splitlines()
    content = json.loads(line)
    for name in ("misanswered", "outcomes", "answer_perplexity"):
        del content[name]
    path.write_text(f"{first}\n{json.dumps(content)}\n")
    with open_trials(path, {}) as trials:
        assert trials.all() == (trial_of(1, 2),)


@pytest.mark.parametrize("outcomes", [3, {"harmful": ["right"]}, {"mine": []}, {"utility": [[]]}])
def test_damaged_outcomes_are_named(tmp_path: Path, outcomes: object) -> None:
    path = tmp_path / "sweep.jsonl"
    whole = replace(
        trial_of(1, 2), outcomes={"harmless": ("refused", "misanswered"), "utility": ("wrong",)}
    )
    with open_trials(path, {}) as trials:
        trials.add(whole)
    with open_trials(path, {}) as trials:
        assert trials.find(None) == whole
    first, line = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(line) | {'outcomes': outcomes})}\n")
    with pytest.raises(EvaluateError, match=r"sweep\.jsonl:2: not a line"), open_trials(path, {}):
        pass


def spoil(path: Path) -> None:
    """Double the first tensor of a safetensors file in its place."""
    tensors = load_file(path)
    name = min(tensors)
    tensors[name] = tensors[name] * tensors[name].dtype.type(2)
    save_file(tensors, path, {"format": "pt"})


def test_a_file_of_other_inputs_is_refused_and_kept(
    models: dict[str, Path], requests: dict[str, Path], tmp_path: Path
) -> None:
    reference = tmp_path / "reference.txt"
    reference.write_text("mix sage with ash")
    out = tmp_path / "sweep.jsonl"
    same: dict[str, Any] = {"grid": {"score": ["weight", "delta"]}, "reference": reference}
    run(models, requests, out, **same)
    content = out.read_bytes()
    for changed, file in (
        ("se", "model.safetensors"),
        ("osm", "model.safetensors"),
        ("se", "scores.safetensors"),
        ("osm", "scores-delta.safetensors"),
    ):
        copy = tmp_path / f"{changed}-{file}"
        shutil.copytree(models[changed], copy)
        spoil(copy / file)
        with pytest.raises(EvaluateError, match="other inputs: models;"):
            run({**models, changed: copy}, requests, out, **same)
    base = tmp_path / "base"
    shutil.copytree(models["base"], base)
    (base / "chat_template.jinja").write_text(TEMPLATE.replace("<assistant>{%", "<system>{%"))
    with pytest.raises(EvaluateError, match="other inputs: requests, judge or how"):
        run({**models, "base": base}, requests, out, **same)
    answers = [{"prompt": prompt, "response": "ash"} for prompt in FILES["harmless"]]
    harmless = write_data(tmp_path / "harmless.jsonl", answers)
    with pytest.raises(EvaluateError, match="other inputs: requests, judge or how"):
        run(models, {**requests, "harmless": harmless}, out, **same)
    reference.write_text("mix ash with sage")
    with pytest.raises(EvaluateError, match="other inputs: requests, judge or how"):
        run(models, requests, out, **same)
    assert out.read_bytes() == content


def test_every_recipe_is_checked_before_anything_is_measured(
    models: dict[str, Path], requests: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "sweep.jsonl"
    with pytest.raises(MismatchError, match=r"scores-base-delta\.safetensors"):
        run(models, requests, out, grid={"score": ["weight", "base-delta"]})
    with pytest.raises(UsageError, match="the osm model is missing"):
        run({**models, "osm": None}, requests, out, grid={"sets": ["se", "union"]})  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="se is given, and ties takes tuned"):
        run(models, requests, out, recipe=find_recipe("ties"), grid={"lambda": [1]})
    assert not out.exists()


def test_the_seconds_of_a_trial_hold_its_build(
    models: dict[str, Path],
    requests: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(perf_counter=count(0, 10**6).__next__)
    monkeypatch.setattr("patchc.verbs.sweep.time", clock)
    named = {**models, **requests, "out": tmp_path / "sweep.jsonl", "options": OPTIONS}
    report = patchc.sweep(**named, grid={"alpha": [2]})  # type: ignore[arg-type]
    assert report.trials[0].seconds > 10**6 > report.base.seconds > 0


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
    figures = sweep_figures(report.base, report.trials, report.best)
    assert [axes.get_xlabel() for axes in figures["rates"].axes] == ["density"]
    assert len(figures["parameters"].axes[0].containers) == 2


def test_one_tuned_model_needs_no_list(
    models: dict[str, Path], requests: dict[str, Path], tmp_path: Path
) -> None:
    report = patchc.sweep(
        models["base"],
        tuned=models["se"],
        **requests,
        out=tmp_path / "sweep.jsonl",
        grid={"density": [0.5]},
        recipe=find_recipe("magnitude"),
        options=OPTIONS,
    )
    assert set((report.best.selected or {}).popitem()[1]) == {"model-0"}


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
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "sweep.jsonl"
    with open_trials(path, {}):
        pass
    with path.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(EvaluateError, match=r"sweep\.jsonl:2: not a line"), open_trials(path, {}):
        pass


@pytest.mark.parametrize(
    "name", ["harmful", "over_refusal", "misanswered", "degenerate", "utility"]
)
@pytest.mark.parametrize("rate", [None, [], [1, -1], [-1, -1], [3, 2], [0, 0], [1], ["1", 2]])
def test_a_damaged_rate_is_named(tmp_path: Path, name: str, rate: object) -> None:
    path = tmp_path / "sweep.jsonl"
    with open_trials(path, {}) as trials:
        trials.add(trial_of(1, 2))
    first, line = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(line) | {name: rate})}\n")
    if (name, rate) == ("utility", None):
        with open_trials(path, {}) as trials:
            assert trials.find(None) == replace(trial_of(1, 2), utility=None)
        return
    with pytest.raises(EvaluateError, match=r"sweep\.jsonl:2: not a line"), open_trials(path, {}):
        pass


def test_a_grid_is_checked_before_anything_runs(tmp_path: Path) -> None:
    for grid, message in (
        ({"lambda": [1]}, "cannot vary 'lambda'"),
        ({"include": [["a"]]}, "cannot vary 'include'"),
        ({"alpha": []}, "no value for alpha"),
        ({"retain": [0.1, 2]}, "between 0 and 1"),
        ({"sets": ["xor"]}, "sets is 'xor'"),
        ({"ratio": [0.9], "beta": [1]}, "gives ratio and beta"),
        ({"ratio": ["much"]}, "ratio is the text 'much'"),
        ({"ratio": []}, "no value for ratio"),
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


def test_a_ratio_makes_beta_a_multiple_of_alpha() -> None:
    recipes = grid_recipes(Recipe(seed=5), {"ratio": [0.86, -1], "alpha": [5, 2.5]})
    assert recipes == [
        Recipe(seed=5, alpha=5, beta=4.3),
        Recipe(seed=5, alpha=2.5, beta=2.15),
        Recipe(seed=5, alpha=5, beta=-5),
        Recipe(seed=5, alpha=2.5, beta=-2.5),
    ]
    assert grid_recipes(Recipe(alpha=3), {"ratio": [0.5]}) == [Recipe(alpha=3, beta=1.5)]
    with pytest.raises(UsageError, match="cannot vary 'ratio'"):
        grid_recipes(find_recipe("ties"), {"ratio": [1]})
