"""Fixes that find no patch within the limits, and inputs that are refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fix_runs import OPTIONS, fix, given, write_requests

import patchc
from patchc.derivation.derive_options import DeriveOptions, TuneOptions
from patchc.errors import (
    DeriveError,
    EvaluateError,
    OutputError,
    UnfixedError,
    UsageError,
)
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.fitting.fit_options import FitOptions, Limit
from patchc.fixing.fix import plan_fix
from patchc.fixing.fix_options import DENSITY
from patchc.fixing.fix_report import FixReport
from patchc.recipe import MergeRecipe, Recipe


def test_where_nothing_fits_there_is_a_report_and_no_patch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge that looks at requests alone: no patch can lower its rates."""
    judge = "def judge(prompts, replies):\n    return ['sage' in prompt for prompt in prompts]\n"
    (tmp_path / "of_prompts.py").write_text(judge)
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "out"
    shutil.copytree(folder / "fixed", out)
    options = replace(
        OPTIONS,
        derive=replace(OPTIONS.derive, openings=("mix",)),
        fit=replace(OPTIONS.fit, openings=("mix",), best_effort=False),
        asking=replace(OPTIONS.asking, judge="of_prompts:judge"),
    )
    with pytest.raises(UnfixedError) as caught:
        fix(folder, out, options=options)
    assert {path.name for path in out.iterdir()} == {"report.json", "work"}
    report = json.loads((out / "report.json").read_bytes())
    found = caught.value.report
    assert isinstance(found, FixReport)
    assert report == found.to_json()
    assert (report["out"], report["test"]) == (None, None)
    assert len(report["development"]["points"]) == 2
    for point in report["development"]["points"]:
        assert {"harm is not lower", "over-refusal is not lower"} <= set(point["against"])
    assert report["verdict"][0].startswith("No patch was written")
    assert set(report["seconds"]) == {"split", "derived"}
    assert fix(folder, out).out == out / "fix.patchc"
    assert (out / "fix.patchc").read_bytes() == (folder / "fixed/fix.patchc").read_bytes()


@pytest.mark.parametrize("dry", [False, True])
def test_an_output_inside_the_base_is_refused(folder: Path, tmp_path: Path, dry: bool) -> None:
    shutil.copytree(folder / "base", tmp_path / "base")
    inner = tmp_path / "base/inner"
    inner.mkdir()
    run_or_plan = plan_fix if dry else patchc.fix
    with pytest.raises(OutputError, match="lies inside the input"):
        run_or_plan(tmp_path / "base", inner, **given(folder), options=OPTIONS)
    assert not any(inner.iterdir())


def test_a_best_effort_and_limits_broken_on_test_are_told(folder: Path, tmp_path: Path) -> None:
    limits = (Limit("perplexity", 0.0, relative=True), Limit("utility", 0.0))
    options = replace(OPTIONS, fit=replace(OPTIONS.fit, limits=limits, candidates=1))
    report = fix(folder, tmp_path / "out", options=options)
    (chosen,) = [one for one in report.development.points if one.chosen]
    assert "beyond perplexity=+0%" in chosen.against
    assert report.verdict[0].startswith("The patch is a best effort: on development, ")
    assert "On test the patch is beyond perplexity=+0%." in report.verdict


def test_limits_that_nothing_measures_are_warned_of(folder: Path, tmp_path: Path) -> None:
    few = {name: path for name, path in given(folder).items() if name in ("harmful", "harmless")}
    plan = plan_fix(folder / "base", tmp_path / "out", **few, options=OPTIONS)
    told = [one for one in plan.warnings if "not checked" in one]
    assert [one.split("=")[0] for one in told] == ["the limit utility", "the limit perplexity"]
    assert "(--utility FILE)" in told[0]
    assert "(--reference FILE)" in told[1]


def test_errors_name_lines_that_are_there(folder: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, derive=replace(OPTIONS.derive, max_length=8))
    with pytest.raises(DeriveError, match=r"^.*learned/harmful\.jsonl:\d+: ") as caught:
        fix(folder, tmp_path / "out", options=options)
    assert Path(str(caught.value).split(":")[0]).is_file()


def test_a_folder_of_something_else_is_refused_and_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        fix(folder, tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["work", "mine.txt"]


def test_too_few_requests_are_refused_before_anything_is_written(
    folder: Path, tmp_path: Path
) -> None:
    few = write_requests(tmp_path / "few.jsonl", "potion", 20, 1)
    with pytest.raises(EvaluateError, match="10 harmful requests for development are too few"):
        fix(folder, tmp_path / "out", harmful=few)
    assert not (tmp_path / "out").exists()


def test_objectives_that_need_responses_say_so(folder: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, derive=DeriveOptions(), recipe=None)
    with pytest.raises(DeriveError, match="none of 20 has one; give each a response"):
        fix(folder, tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_the_pair_learns_from_the_responses_of_harmful_requests(
    folder: Path, tmp_path: Path
) -> None:
    lines = [json.loads(line) for line in (folder / "harmful.jsonl").read_text().splitlines()]
    for line in lines[3:]:
        line["response"] = f"mix {line['prompt']}"
    harmful = tmp_path / "harmful.jsonl"
    harmful.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tune = TuneOptions(learning_rate=1e-3, steps=1, batch_size=2)
    options = replace(
        OPTIONS,
        derive=DeriveOptions(se=tune, osm=tune, score_samples=2, device="cpu"),
        recipe=Recipe(retain=0.8, top_se=0.5, top_osm=0.5),
        asking=replace(OPTIONS.asking, system="brew"),
    )
    out = tmp_path / "out"
    report = fix(folder, out, harmful=harmful, options=options)
    learned = (out / "work/learned/harmful.jsonl").read_text().splitlines()
    assert 0 < len(learned) <= report.learned["harmful"]
    for line in learned:
        system, user, assistant = json.loads(line)["messages"]
        assert system == {"role": "system", "content": "brew"}
        assert assistant == {"role": "assistant", "content": f"mix {user['content']}"}
    derived = sorted(path.name for path in (out / "work/derived").iterdir() if path.is_dir())
    assert derived == ["osm", "se"]
    assert report.out == out / "fix.patchc"


def test_the_seed_is_of_every_part() -> None:
    options = patchc.FixOptions(seed=5, fit=FitOptions(seed=1), derive=DeriveOptions(seed=2))
    assert (options.fitting.seed, options.deriving.seed, options.merging.seed) == (5, 5, 5)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("margin", MergeRecipe("dare", density=DENSITY, rescale=False)),
        ("refusals", Recipe(sets="se")),
        ("npo", Recipe(sets="se")),
        ("answers", Recipe(sets="osm")),
        ("pair", Recipe()),
    ],
)
def test_each_objective_has_its_recipe(objective: Any, expected: object) -> None:
    assert patchc.FixOptions(derive=DeriveOptions(objective=objective)).merging == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_share": 1.0}, "test_share is 1.0"),
        ({"recipe": Recipe()}, "objective margin derives no osm; take sets 'se'"),
        ({"recipe": Recipe(sets="se", score="delta")}, "ranks by delta scores"),
        ({"asking": EvaluateOptions(lm_eval=("piqa",))}, "lm_eval is not a part of a fix"),
    ],
)
def test_options_that_cannot_be_met_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        patchc.FixOptions(**options)


def test_too_small_a_budget_ends_the_derivation_or_the_fit(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the derivation needs at least"):
        fix(folder, tmp_path / "new", max_memory=1)
    out = tmp_path / "derived"
    shutil.copytree(folder / "fixed", out)
    shutil.rmtree(out / "work/fitted")
    with pytest.raises(UsageError, match="the fit needs at least"):
        fix(folder, out, max_memory=1)
    with pytest.raises(UsageError, match="max_memory is 0; it must be"):
        fix(folder, out, max_memory=0)
