"""How ``patchc.fix`` splits requests, or takes sets that are split already."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from fix_runs import OPTIONS, fix, given

from patchc.evaluation.requests import read_requests
from patchc.fixing.fix import plan_fix


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
