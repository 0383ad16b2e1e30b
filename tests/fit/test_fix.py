"""``patchc.fix`` and its command: from requests to a tested patch, on a tiny random Llama."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from fit_inputs import says_ash
from safetensors.torch import load_file, save_file
from tiny_llama import write_base

import patchc
from patchc.derivation.derive_options import DeriveOptions, TuneOptions
from patchc.errors import (
    DeriveError,
    EvaluateError,
    OutputError,
    StorageError,
    UnfixedError,
    UsageError,
)
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.requests import read_requests
from patchc.evaluation.splits import check_disjoint
from patchc.evaluation.validation import is_learned_from
from patchc.fitting.fit_options import FitOptions, Limit
from patchc.fixing import stages
from patchc.fixing.fix import plan_fix
from patchc.fixing.fix_options import DENSITY
from patchc.fixing.report import FixReport
from patchc.progress import ProgressEvent
from patchc.recipe import MergeRecipe, Recipe

FEW = ["how", "do", "I", "brew", "a", "mix", "sage", "with", "ash"]
FILES = ("fix.patchc", "recipe.toml", "report.json")
OPTIONS = patchc.FixOptions(
    derive=DeriveOptions(
        objective="margin",
        margin=TuneOptions(learning_rate=1e-3, steps=6, batch_size=8),
        score_samples=2,
        device="cpu",
    ),
    recipe=MergeRecipe("dare", density=0.5),
    fit=FitOptions(steps=5, batch_size=8, candidates=2, best_effort=True),
    asking=EvaluateOptions(judge=says_ash, max_new_tokens=6, device="cpu"),
)


def write_requests(path: Path, word: str, count: int, seed: int, **more: Any) -> Path:
    """Random requests, none near another, of two kinds."""
    rng = random.Random(seed)
    records = [
        {"prompt": " ".join([*rng.choices(FEW, k=5), word, *rng.choices(FEW, k=2)])}
        | {"kind": "even" if number % 2 else "odd"}
        | more
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a file of each set, and ``fixed``, the folder of a fix of them."""
    found = tmp_path_factory.mktemp("fix")
    write_base(found / "base")
    write_requests(found / "harmful.jsonl", "potion", 40, 1)
    write_requests(found / "harmless.jsonl", "tea", 40, 2, response="mix sage")
    write_requests(found / "utility.jsonl", "tea", 12, 3, answers=["ash"])
    (found / "reference.txt").write_text("how do I brew a tea with sage")
    fix(found, found / "fixed")
    return found


def given(folder: Path) -> dict[str, Any]:
    files = {name: folder / f"{name}.jsonl" for name in ("harmful", "harmless", "utility")}
    return {**files, "reference": folder / "reference.txt"}


def fix(folder: Path, out: Path, **changes: Any) -> FixReport:
    """The fix of the folder's requests; ``changes`` replace arguments."""
    arguments = {**given(folder), "options": OPTIONS, **changes}
    return patchc.fix(folder / "base", out, **arguments)


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


def without_seconds(out: Path) -> dict[str, Any]:
    report = json.loads((out / "report.json").read_bytes())
    return {
        name: value for name, value in report.items() if name not in ("seconds", "out", "recipe")
    }


def test_the_folder_holds_the_three_files_and_the_work(folder: Path) -> None:
    assert {path.name for path in (folder / "fixed").iterdir()} == {*FILES, "work"}


def test_the_figures_are_those_of_evaluate_on_the_test_split(folder: Path) -> None:
    test = folder / "fixed/work/split/test"
    report = fix(folder, folder / "fixed")
    measured = patchc.evaluate(
        [folder / "base"],
        **{name: test / f"{name}.jsonl" for name in ("harmful", "harmless", "utility")},
        reference=folder / "reference.txt",
        patch=folder / "fixed/fix.patchc",
        options=OPTIONS.asking,
    )
    assert report.test is not None
    for figures, model in zip(
        (report.test.base, report.test.patched), measured.models, strict=True
    ):
        for name in ("harmful", "over_refusal", "misanswered", "utility", "degenerate", "kinds"):
            assert getattr(figures, name) == getattr(model, name)
        assert figures.perplexity == pytest.approx(model.perplexity)
        assert figures.answer_perplexity == pytest.approx(model.answer_perplexity)
    assert [report.test.changes] == list(measured.changes.values())


def test_the_patch_is_the_recipe_s_and_fits_the_base(folder: Path, tmp_path: Path) -> None:
    out, report = folder / "fixed", fix(folder, folder / "fixed")
    recipe = patchc.read_recipe(out / "recipe.toml")
    patchc.build(
        folder / "base",
        tuned=[out / "work/derived/margin"],
        recipe=recipe,
        out=tmp_path / "again.patchc",
    )
    assert (tmp_path / "again.patchc").read_bytes() == (out / "fix.patchc").read_bytes()
    patchc.apply(out / "fix.patchc", folder / "base", out=tmp_path / "patched")
    assert patchc.verify(out / "fix.patchc", folder / "base").state == "base"
    assert patchc.verify(out / "fix.patchc", tmp_path / "patched").state == "patched"
    assert report.patch_bytes == (out / "fix.patchc").stat().st_size
    assert report.share == report.patch_bytes / report.model_bytes


def test_the_parts_are_disjoint_and_hold_every_request(folder: Path) -> None:
    split = folder / "fixed/work/split"
    for name, file in (("harmful", "harmful.jsonl"), ("harmless", "harmless.jsonl")):
        whole = read_requests(folder / file, name)
        parts = [read_requests(split / part / file, name) for part in ("development", "test")]
        assert sorted(one.prompt for part in parts for one in part) == sorted(
            one.prompt for one in whole
        )
        assert check_disjoint(*parts) == []
        assert {one.kind for one in parts[1]} == {"even", "odd"}


def test_what_ends_the_fit_is_not_learned_from(folder: Path) -> None:
    work = folder / "fixed/work"
    for name in ("harmful", "harmless"):
        asked = read_requests(work / f"split/development/{name}.jsonl", name)
        marks = is_learned_from(asked, name, OPTIONS.fit.validation, OPTIONS.seed)
        learned = read_requests(work / f"learned/{name}.jsonl", name)
        assert [one.prompt for one in learned] == [
            one.prompt for one, inside in zip(asked, marks, strict=True) if inside
        ]
        assert len(learned) < len(asked)


def test_a_second_run_skips_everything(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(folder / "fixed")
    for verb in ("derive", "fit", "evaluate"):
        monkeypatch.setattr(stages, verb, None)
    report = fix(folder, folder / "fixed")
    assert contents(folder / "fixed") == before
    assert json.loads(before["report.json"]) == report.to_json()


def test_results_that_are_lost_are_brought_back(folder: Path) -> None:
    before = contents(folder / "fixed")
    (folder / "fixed/fix.patchc").write_bytes(b"half")
    (folder / "fixed/recipe.toml").unlink()
    (folder / "fixed/.fix.patchc.01234567.partial").write_bytes(b"")
    fix(folder, folder / "fixed")
    assert contents(folder / "fixed") == before
    assert {path.name for path in (folder / "fixed").iterdir()} == {*FILES, "work"}


class StopError(Exception):
    """What a run is interrupted by."""


def stop_at(stage: str, count: int) -> Callable[[ProgressEvent], None]:
    """A progress callback that raises at the n-th event of a stage."""
    seen: Iterator[int] = iter(range(1, 10**6))

    def progress(event: ProgressEvent) -> None:
        if event.stage.startswith(stage) and next(seen) == count:
            raise StopError

    return progress


@pytest.mark.parametrize(
    ("stage", "count"), [("ask base", 1), ("tune margin", 3), ("ask the base", 1), ("ask base", 4)]
)
def test_an_interrupted_run_goes_on_to_the_same_patch(
    folder: Path, tmp_path: Path, stage: str, count: int
) -> None:
    out = tmp_path / "out"
    with pytest.raises(StopError):
        fix(folder, out, progress=stop_at(stage, count))
    assert {path.name for path in out.iterdir()} == {"work"}
    fix(folder, out)
    again, first = contents(out), contents(folder / "fixed")
    assert again["fix.patchc"] == first["fix.patchc"]
    assert again["recipe.toml"] == first["recipe.toml"]
    assert without_seconds(out) == without_seconds(folder / "fixed")


KILLED = """
import os, sys
from pathlib import Path
import test_fix

def end(event):
    if (event.stage, event.done) == ("fit", 3):
        os._exit(9)

test_fix.fix(Path(sys.argv[1]), Path(sys.argv[2]), progress=end)
"""


def test_a_killed_fit_goes_on_from_its_last_step(folder: Path, tmp_path: Path) -> None:
    out, events = tmp_path / "out", list[ProgressEvent]()
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(here)])}
    line = [sys.executable, "-c", KILLED, str(folder), str(out)]
    assert subprocess.run(line, env=environment).returncode == 9
    fix(folder, out, progress=events.append)
    assert {event.stage for event in events}.isdisjoint({"tune margin", "ask the base"})
    assert [event.done for event in events if event.stage == "fit"] == [4, 5]
    assert (out / "fix.patchc").read_bytes() == (folder / "fixed/fix.patchc").read_bytes()
    assert {path.name for path in (out / "work").iterdir()} == {
        path.name for path in (folder / "fixed/work").iterdir()
    }


def test_other_limits_go_on_from_the_same_steps(folder: Path, tmp_path: Path) -> None:
    out, events = tmp_path / "out", list[ProgressEvent]()
    shutil.copytree(folder / "fixed", out)
    options = replace(OPTIONS, fit=replace(OPTIONS.fit, limits=(Limit("degenerate", 100.0),)))
    fix(folder, out, options=options, progress=events.append)
    assert {event.stage for event in events}.isdisjoint({"tune margin", "fit", "ask the base"})


def test_other_requests_are_derived_from_anew(folder: Path, tmp_path: Path) -> None:
    out, events = tmp_path / "out", list[ProgressEvent]()
    shutil.copytree(folder / "fixed", out)
    harmful = write_requests(tmp_path / "harmful.jsonl", "potion", 40, 7)
    fix(folder, out, harmful=harmful, progress=events.append)
    assert {"tune margin", "fit", "ask the base"} <= {event.stage for event in events}
    assert (out / "fix.patchc").read_bytes() != (folder / "fixed/fix.patchc").read_bytes()


def test_parts_that_are_given_are_taken_as_they_are(folder: Path, tmp_path: Path) -> None:
    split = folder / "fixed/work/split"
    pairs = {
        name: (split / f"development/{name}.jsonl", split / f"test/{name}.jsonl")
        for name in ("harmful", "harmless", "utility")
    }
    report = fix(folder, tmp_path / "out", **pairs)
    assert all(one.given for one in report.requests.values())
    assert report.warnings == ()
    assert (tmp_path / "out/fix.patchc").read_bytes() == (folder / "fixed/fix.patchc").read_bytes()


def test_near_duplicates_in_given_parts_are_warned_of(folder: Path, tmp_path: Path) -> None:
    harmful = folder / "harmful.jsonl"
    plan = plan_fix(
        folder / "base",
        tmp_path / "out",
        harmful=(harmful, harmful),
        harmless=folder / "harmless.jsonl",
        options=OPTIONS,
    )
    warning = plan.warnings[0]
    assert warning.startswith("harmful: 40 pairs of near-duplicates stand in development and test")
    assert f"{harmful}:1 and {harmful}:1" in warning


def test_groups_stay_together(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "harmful.jsonl").read_text().splitlines()
    grouped = tmp_path / "grouped.jsonl"
    grouped.write_text(
        "".join(
            json.dumps(json.loads(line) | {"template": number % 8}) + "\n"
            for number, line in enumerate(lines)
        )
    )
    report = fix(folder, tmp_path / "out", harmful=grouped)
    groups = [
        {
            one.group
            for one in read_requests(tmp_path / f"out/work/split/{part}/harmful.jsonl", "harmful")
        }
        for part in ("development", "test")
    ]
    assert groups[0].isdisjoint(groups[1])
    assert (report.requests["harmful"].grouped_by, report.requests["utility"].grouped_by) == (
        "group",
        None,
    )


def test_a_dry_run_writes_nothing_and_says_what_is_kept(folder: Path, tmp_path: Path) -> None:
    base = folder / "base"
    fresh = plan_fix(base, tmp_path / "out", **given(folder), options=OPTIONS)
    assert not (tmp_path / "out").exists()
    assert [(one.name, one.kept, one.seconds) for one in fresh.stages] == [
        (name, False, None) for name in ("split", "derived", "fitted", "tested")
    ]
    assert {name: (one.development, one.test) for name, one in fresh.requests.items()} == {
        "harmful": (20, 20),
        "harmless": (20, 20),
        "utility": (6, 6),
    }
    for name in ("harmful", "harmless"):
        file = folder / f"fixed/work/learned/{name}.jsonl"
        assert fresh.learned[name] == len(read_requests(file, name))
    done = plan_fix(base, folder / "fixed", **given(folder), options=OPTIONS)
    assert all(one.kept and one.seconds for one in done.stages)
    other = replace(OPTIONS, fit=replace(OPTIONS.fit, steps=6))
    changed = plan_fix(base, folder / "fixed", **given(folder), options=other)
    assert [one.kept for one in changed.stages] == [True, True, False, False]


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


def test_a_derivation_that_rounds_otherwise_is_fitted_anew(folder: Path, tmp_path: Path) -> None:
    """Derived again, perhaps on another machine, the models differ in their last bits."""
    out, events = tmp_path / "out", list[ProgressEvent]()
    shutil.copytree(folder / "fixed", out)
    model = out / "work/derived/margin/model.safetensors"
    tensors = load_file(model)
    tensors = {name: value * (1 + 2**-20) for name, value in tensors.items()}
    save_file(tensors, model)
    found = json.loads((out / "work/derived/found.json").read_bytes())
    (out / "work/derived/found.json").write_text(json.dumps({**found, "weights": "others"}))
    options = replace(OPTIONS, fit=replace(OPTIONS.fit, limits=(Limit("degenerate", 100.0),)))
    fix(folder, out, options=options, progress=events.append)
    assert {"fit", "ask the base"} <= {event.stage for event in events}


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


def test_errors_name_lines_that_are_there(folder: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, derive=replace(OPTIONS.derive, max_length=8))
    with pytest.raises(DeriveError, match=r"^.*learned/harmful\.jsonl:\d+: ") as caught:
        fix(folder, tmp_path / "out", options=options)
    assert Path(str(caught.value).split(":")[0]).is_file()


def test_a_split_that_lost_a_file_is_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "fixed", tmp_path / "out")
    shutil.rmtree(tmp_path / "out/work/split/test")
    with pytest.raises(StorageError, match="split"):
        fix(folder, tmp_path / "out")


def test_a_folder_of_something_else_is_refused_and_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        fix(folder, tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["work", "mine.txt"]


def test_a_start_that_was_killed_is_gone_on_with(folder: Path, tmp_path: Path) -> None:
    (tmp_path / ".work.0123abcd.partial").mkdir()
    with pytest.raises(StopError):
        fix(folder, tmp_path, progress=stop_at("ask base", 1))
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


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


# The command ----------------------------------------------------------------------------------


def command(folder: Path, out: Path, *more: object) -> list[object]:
    """The command line of a fix of the folder's requests, with few steps."""
    files = [f"--{name}={folder / name}.jsonl" for name in ("harmful", "harmless", "utility")]
    judge = ["--judge", "fit_inputs:says_ash", "--max-new-tokens", 6, "--device", "cpu"]
    few = ["--budget", 5, "--density", 0.5, "--best-effort"]
    return ["fix", folder / "base", "-o", out, *files, *judge, *few, *more]


def test_the_command_shows_both_parts_and_what_came_of_it(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, shown, _ = run(*command(folder, out))
    report = json.loads((out / "report.json").read_bytes())
    assert code == 0
    assert "test: base" in shown
    rates = [report["development"]["comparison"], report["test"]]
    for rate in (one[model]["harmful"] for one in rates for model in ("base", "patched")):
        assert f"{100 * rate['value']:.1f} %" in shown
    assert all(sentence in shown for sentence in report["verdict"])
    code, printed, _ = run(*command(folder, out, "--json"))
    assert (code, json.loads(printed)) == (0, report)


def test_the_command_shows_a_plan(folder: Path, tmp_path: Path) -> None:
    code, shown, _ = run(*command(folder, tmp_path / "out", "--dry-run"))
    assert code == 0
    assert "20 for development" in shown
    assert "at most 5 steps" in shown
    assert "nothing was written" in shown
    assert not (tmp_path / "out").exists()
    code, printed, _ = run(*command(folder, tmp_path / "out", "--dry-run", "--json"))
    assert json.loads(printed)["requests"]["utility"]["test"] == 6


def test_the_command_ends_with_20_where_nothing_fits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_all.py").write_text(
        "def judge(prompts, replies):\n    return ['sage' in prompt for prompt in prompts]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    line = command(folder, tmp_path / "out", "--judge", "of_all:judge", "--opening", "mix")
    line.remove("--best-effort")
    code, shown, complaint = run(*line)
    report = json.loads((tmp_path / "out/report.json").read_bytes())
    assert code == 20
    assert "no point lowers harm and over-refusal" in complaint
    assert report["verdict"][0] in shown
    assert f"step {report['development']['points'][0]['step']}" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--harmful", "h"], "--harmless is missing"),
        (["--harmful", "h", "--harmless", "s", "--test-utility", "u"], "to split and as parts"),
        (["--dev-harmful", "h", "--test-harmful", "h"], "--dev-harmless is missing"),
        (
            [f"--{part}-{name}=x" for part in ("dev", "test") for name in ("harmful", "harmless")]
            + ["--dev-utility=u"],
            "--test-utility is missing",
        ),
        (
            ["--harmful", "h", "--harmless", "s", "--objective", "pair", "--density", "0.1"],
            "--density is for a merge",
        ),
        (["--harmful", "h", "--harmless", "s", "--budget", "soon"], "--budget is 'soon'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, _, complaint = run("fix", "base", "-o", tmp_path / "out", *arguments)
    assert code == 2
    assert message in complaint
    assert not (tmp_path / "out").exists()
