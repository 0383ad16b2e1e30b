"""``patchc.sweep``: its trials against the verbs it is made of, resuming, figures, command line."""

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
from safetensors.numpy import load_file, save_file
from tiny_llama import TEMPLATE, write_base, write_data
from typer.testing import CliRunner

import patchc
from patchc import DeriveOptions, EvaluateOptions, Recipe
from patchc.cli.main import app
from patchc.derivation.derive_options import TuneOptions
from patchc.errors import EvaluateError, MismatchError, UsageError
from patchc.evaluation.figures import sweep_figures
from patchc.evaluation.intervals import Rate
from patchc.evaluation.shares import shares_by_layer, shares_by_module
from patchc.evaluation.trials import Trial, cost, open_trials
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
    options = DeriveOptions(
        se=steps, osm=steps, score_samples=3, device="cpu", scores=("weight", "delta")
    )
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
    return SweepReport(replace(report.base, seconds=0.0), trials, best, report.kinds)


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
        trials.add(trial(1, 2))
    first, line = path.read_text().splitlines()
    content = json.loads(line)
    for name in ("misanswered", "outcomes", "answer_perplexity"):
        del content[name]
    path.write_text(f"{first}\n{json.dumps(content)}\n")
    with open_trials(path, {}) as trials:
        assert trials.all() == (trial(1, 2),)


@pytest.mark.parametrize("outcomes", [3, {"harmful": ["right"]}, {"mine": []}, {"utility": [[]]}])
def test_damaged_outcomes_are_named(tmp_path: Path, outcomes: object) -> None:
    path = tmp_path / "sweep.jsonl"
    whole = replace(
        trial(1, 2), outcomes={"harmless": ("refused", "misanswered"), "utility": ("wrong",)}
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
        with pytest.raises(EvaluateError, match="other inputs: models, requests, options"):
            run({**models, changed: copy}, requests, out, **same)
    base = tmp_path / "base"
    shutil.copytree(models["base"], base)
    (base / "chat_template.jinja").write_text(TEMPLATE.replace("<assistant>{%", "<system>{%"))
    with pytest.raises(EvaluateError, match="other inputs: models, requests, options"):
        run({**models, "base": base}, requests, out, **same)
    answers = [{"prompt": prompt, "response": "ash"} for prompt in FILES["harmless"]]
    harmless = write_data(tmp_path / "harmless.jsonl", answers)
    with pytest.raises(EvaluateError, match="other inputs: models, requests, options"):
        run(models, {**requests, "harmless": harmless}, out, **same)
    reference.write_text("mix ash with sage")
    with pytest.raises(EvaluateError, match="other inputs: models, requests, options"):
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
        trials.add(trial(1, 2))
    first, line = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(line) | {name: rate})}\n")
    if (name, rate) == ("utility", None):
        with open_trials(path, {}) as trials:
            assert trials.find(None) == replace(trial(1, 2), utility=None)
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


def trial(
    harmful: int, over_refusal: int, utility: int = 10, degenerate: int = 0, misanswered: int = 0
) -> Trial:
    counted = (harmful, over_refusal, misanswered, utility, degenerate)
    return Trial(None, *(Rate(hits, 10) for hits in counted), perplexity=None)


def test_the_cost_by_hand() -> None:
    base = trial(4, 5)
    assert cost(base, base) == 1.0
    assert cost(trial(0, 0), base) == 0.0
    assert cost(trial(1, 1), base) == 0.25
    assert cost(trial(0, 0, utility=9), base) == pytest.approx(0.15)
    assert cost(trial(0, 0, degenerate=2), base) == pytest.approx(0.3)
    assert cost(trial(0, 10), base) == 2.0
    assert cost(trial(0, 2, misanswered=1), base) == pytest.approx(3 / 5 + 0.15)


def test_the_cost_where_the_base_has_rates_of_0() -> None:
    """A rise costs, more costs more, and neither rate hides the other or the rest."""
    base = trial(0, 5)
    assert cost(trial(0, 5), base) == 1.0
    assert cost(trial(1, 0), base) == pytest.approx(2)
    assert cost(trial(2, 0), base) == pytest.approx(4)
    assert cost(trial(2, 0, utility=9), base) == pytest.approx(4.15)
    assert cost(trial(0, 0), trial(0, 0)) == 0.0
    rise = cost(trial(0, 0, misanswered=1), trial(5, 0))
    assert rise == pytest.approx(2 + 0.15)


def counts(se: int, osm: int, overlap: int, applied: tuple[int, int]) -> dict[str, int]:
    top = {"se": se, "osm": osm, "overlap": overlap}
    return {**top, "se applied": applied[0], "osm applied": applied[1]}


def test_shares_by_hand() -> None:
    selected = {
        "model.layers.10.mlp.up_proj.weight": counts(se=9, osm=9, overlap=4, applied=(5, 0)),
        "model.layers.2.mlp.up_proj.weight": counts(se=3, osm=3, overlap=2, applied=(1, 1)),
        "model.layers.2.mlp.experts.7.w1.weight": counts(se=4, osm=1, overlap=0, applied=(4, 1)),
    }
    assert shares_by_layer(selected) == {
        "se": {"model.layers.2": 0.5, "model.layers.10": 0.5},
        "osm": {"model.layers.2": 1.0, "model.layers.10": 0.0},
    }
    assert shares_by_module(selected) == {
        "se": {"mlp.experts.w1": 0.4, "mlp.up_proj": 0.6},
        "osm": {"mlp.experts.w1": 0.5, "mlp.up_proj": 0.5},
    }
    alone = {"a.0.b": {"osm": 3, "osm applied": 2}, "a.1.b": {"osm": 3, "osm applied": 0}}
    assert shares_by_layer(alone) == {"osm": {"a.0": 1.0, "a.1": 0.0}}
    assert shares_by_layer({"a.0.b": {"model-0": 3}}) == {"model-0": {"a.0": 1.0}}
    assert shares_by_layer({}) == {}


def test_the_figures_by_hand() -> None:
    recipes = [Recipe(alpha=a, beta=b, seed=s) for a, b, s in ((4, 2, 0), (2, 2, 1), (2, 9, 2))]
    trials = [
        replace(trial(*rates), recipe=recipe.to_json(), selected=selected)
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
    figures = sweep_figures(trial(7, 8), trials, trials[2])
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
    trials = [replace(trial(1, 2, misanswered=n), recipe=Recipe(alpha=n).to_json()) for n in (1, 3)]
    (axes,) = sweep_figures(trial(1, 2), trials, trials[0])["rates"].axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["harmful", "over-refusal", "misanswered"]
    assert list(map(float, axes.lines[4].get_ydata())) == [0.1, 0.3]


def test_figures_without_data_are_left_out() -> None:
    same = replace(trial(1, 2), recipe=find_recipe("ties").to_json())
    assert sweep_figures(trial(1, 2), [same], same) == {}
    assert sweep_figures(trial(1, 2), [], trial(1, 2)) == {}


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
    assert "model.layers.1" not in shown.output
    assert "misanswered" in shown.output
    for name in ("rates.png", "parameters.png"):
        assert (figures / name).read_bytes().startswith(b"\x89PNG")
    again = CliRunner().invoke(app, [*words, "--json"])
    report = json.loads(again.output)["report"]
    points = [(2, 0), (2, 1), (40, 0), (40, 1)]
    assert sorted(tuple(one["recipe"].values()) for one in report["trials"]) == points
    costs = [one["cost"] for one in report["trials"]]
    assert costs == sorted(costs)
    assert all(one["worse"] == [] and one["patch_bytes"] > 0 for one in report["trials"])
    assert report["base"]["harmful"]["total"] == report["trials"][0]["harmful"]["total"] == 3
    assert "selected" not in again.output
    assert "outcomes" not in again.output
    bad = CliRunner().invoke(app, [*words, "--beta", "1,x"])
    assert bad.exit_code == UsageError.exit_code
    assert "--beta is '1,x'" in bad.output


def test_the_command_line_says_what_a_trial_makes_worse(
    models: dict[str, Path], requests: dict[str, Path], tmp_path: Path
) -> None:
    """The file is of a sweep that went on: outcomes of more requests are written into it."""
    out = tmp_path / "sweep.jsonl"
    words = ["sweep", models["base"], "--se", models["se"], "--osm", models["osm"], "-o", out]
    words += ["--harmful", requests["harmful"], "--harmless", requests["harmless"]]
    words += ["--max-new-tokens", "2", "--alpha", "3,4", "--ratio", "0.5"]
    words = list(map(str, words))
    assert CliRunner().invoke(app, words).exit_code == 0
    header, *lines = map(json.loads, out.read_text().splitlines())
    lines[0]["outcomes"]["harmless"] = ["answered"] * 6
    lines[1]["outcomes"]["harmless"] = ["misanswered"] * 6
    lines[2]["outcomes"]["harmless"] = ["misanswered"] * 5 + ["answered"]
    write_data(out, [header, *lines])
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    rows = {cells[0]: cells for cells in map(str.split, shown.output.splitlines()) if cells}
    assert "worse than the base" in shown.output
    assert rows["alpha=3.0"][1] == "beta=1.5"
    assert rows["alpha=3.0"][-1] == "misanswered"
    assert rows["alpha=4.0"][1] == "beta=2.0"
    assert rows["alpha=4.0"][-1] != "misanswered"
    report = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)["report"]
    worse = {one["recipe"]["alpha"]: one["worse"] for one in report["trials"]}
    assert worse == {3: ["misanswered"], 4: []}


def test_the_command_line_shows_rates_by_kind(
    models: dict[str, Path], requests: dict[str, Path], tmp_path: Path
) -> None:
    harmless = [json.loads(line) for line in requests["harmless"].read_text().splitlines()]
    kinds = [{**record, "kind": "hot"} for record in harmless]
    named = write_data(tmp_path / "harmless.jsonl", kinds)
    words = ["sweep", models["base"], "--se", models["se"], "--osm", models["osm"]]
    words += ["--harmful", requests["harmful"], "--harmless", named, "--alpha", "3"]
    words += ["--max-new-tokens", "2", "-o", tmp_path / "sweep.jsonl"]
    shown = CliRunner().invoke(app, list(map(str, words)))
    assert shown.exit_code == 0, shown.output
    assert "over-refusal: hot" in shown.output
    assert "misanswered: hot" not in shown.output
    report = json.loads(CliRunner().invoke(app, [*map(str, words), "--json"]).output)["report"]
    for name in ("base", "best"):
        assert report["kinds"][name].keys() == {"harmless", "misanswered"}
        assert report["kinds"][name]["harmless"]["hot"]["total"] == 2
