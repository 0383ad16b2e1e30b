"""``patchc derive``: its plan, and where its scratch files lie."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from derive_commands import derive, scratch_of
from streaming import least_of, streaming
from tiny_checkpoints import tree
from tiny_llama import write_base, write_data

from patchc.derivation.derive_plan import DerivePlan
from patchc.layered.scratch import Scratch, ScratchFile
from patchc.verbs.derive_run import scratch_folder


def test_a_dry_run_prints_the_plan_and_writes_nothing(derivable: Path, tmp_path: Path) -> None:
    out, scratch = tmp_path / "new/out", tmp_path / "scratch"
    code, printed, errors = derive(derivable, out, "--scratch", scratch, "--dry-run")
    assert (code, errors) == (0, "")
    title, *lines, last = printed.splitlines()
    assert title == f"derive: would write {out}"
    assert last.startswith("next: patchc derive ")
    facts = {line[2:].split("  ")[0]: line.split("  ")[-1].strip() for line in lines}
    assert list(facts) == [
        "optimizer", "weights", "layers", "memory", "scratch files", "output", "a step moves",
        "a step takes", "scores take",
    ]  # fmt: skip
    assert facts["weights"] == "in memory"
    assert facts["layers"] == "computed once"
    # The process that runs the tests counts as well, whatever ran in it before.
    assert re.fullmatch(r"[\d.]+ [MG]B", facts["memory"])
    assert facts["scratch files"] == "0 bytes"
    assert facts["scores take"].endswith("for each of se and osm")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("streams")
def test_the_plan_of_a_streamed_run_says_what_it_moves(derivable: Path, tmp_path: Path) -> None:
    more = ["--dry-run", "--optimizer", "adamw8bit"]
    code, printed, errors = derive(derivable, tmp_path / "out", *more)
    assert (code, errors) == (0, "")
    assert "optimizer      adamw8bit" in printed
    assert "in scratch files, a layer at a time" in printed
    assert "computed twice" in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("streams")
def test_json_has_every_field_of_the_plan(derivable: Path, tmp_path: Path) -> None:
    for more in (["--dry-run"], []):
        code, printed, _ = derive(derivable, tmp_path / "out", "--json", *more)
        assert code == 0
        report = json.loads(printed)
        plan = report["plan"]
        assert plan.keys() == {field.name for field in fields(DerivePlan)}
        assert (plan["streams"], plan["recomputes"], plan["device"]) == (True, True, "cpu")
        assert min(plan["memory_bytes"], plan["scratch_bytes"], plan["step_bytes"]) > 0
        estimates = [plan["step_seconds"], plan["score_seconds"]]
        assert all(estimates) if more else estimates == [None, None]
        assert [one["direction"] for one in report["directions"]] == ([] if more else ["se", "osm"])


@pytest.mark.usefixtures("streams")
def test_the_least_that_a_refusal_names_is_accepted(derivable: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, errors = derive(derivable, out, "--max-memory", "0")
    assert code == 2
    least = least_of(errors)
    code, _, errors = derive(derivable, out, "--max-memory", least // 2)
    assert code == 2
    assert f"may take {least // 2:,}; allow more" in errors
    assert not list(tmp_path.iterdir())
    code, printed, errors = derive(derivable, out, "--max-memory", least)
    assert code == 0, errors
    assert "in scratch files, a layer at a time, at most" in printed
    assert tree(out) == tree(derivable / "whole")


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("place", ["scratch", "not/yet/there", "link", "relative", "out", None])
def test_the_scratch_folder_is_used_and_removed(
    derivable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "linked").mkdir()
    (tmp_path / "link").symlink_to("linked")
    parent = tmp_path / (place or "")
    more = ["--scratch", place if place == "relative" else parent] if place else []
    used = set()
    make = ScratchFile.__init__

    def makes(self: ScratchFile, path: Path, size: int) -> None:
        used.add(path.parent.parent.absolute())
        make(self, path, size)

    monkeypatch.setattr(ScratchFile, "__init__", makes)
    code, _, errors = derive(derivable, tmp_path / "out", *more)
    assert code == 0, errors
    assert used == {parent}
    assert not scratch_of(parent)
    assert tree(tmp_path / "out") == tree(derivable / "whole")


@pytest.mark.usefixtures("streams")
def test_an_output_inside_the_scratch_folder(derivable: Path, tmp_path: Path) -> None:
    code, _, errors = derive(derivable, tmp_path / "all/out", "--scratch", tmp_path / "all")
    assert code == 0, errors
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["out"]


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("base", "lies inside the input"),
        ("base/deeper", "lies inside the input"),
        ("file", "which is no folder"),
        ("file/deeper", "which is no folder"),
        ("dangling", "which is no folder"),
        ("out/se", "lies inside the output"),
        ("out/osm/deeper", "lies inside the output"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_scratch_folder_in_the_wrong_place_is_refused(
    derivable: Path, tmp_path: Path, place: str, message: str, more: list[str]
) -> None:
    shutil.copytree(derivable / "base", tmp_path / "base")
    shutil.copy(derivable / "data.jsonl", tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    before = sorted(tmp_path.rglob("*"))
    code, _, errors = derive(tmp_path, tmp_path / "out", "--scratch", tmp_path / place, *more)
    assert code == 11
    assert errors.startswith(f"patchc: error: scratch folder {tmp_path / place}/out.patchc-scratch")
    assert message in errors
    assert errors.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("to", [None, "linked", "nowhere"])
def test_what_is_in_the_way_of_a_scratch_folder_is_left_alone(
    derivable: Path, tmp_path: Path, to: str | None
) -> None:
    place = scratch_folder(tmp_path / "out", None)
    (tmp_path / "linked").mkdir()
    if to:
        place.symlink_to(to)
    else:
        place.write_text("mine")
    code, _, errors = derive(derivable, tmp_path / "out")
    assert code == 11
    assert f"{place} is in the way: patchc did not make it; move it away" in errors
    assert sorted(tmp_path.iterdir()) == sorted([place, tmp_path / "linked"])


def test_a_derivation_in_memory_needs_no_folder_beside_its_output(
    derivable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access, out = os.access, tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and access(path, mode))
    with streaming():
        code, _, errors = derive(derivable, out)
        assert code == 11
        assert f"the permissions of {tmp_path} forbid it; change them or choose another" in errors
        assert derive(derivable, out, "--scratch", tmp_path / "out")[0] == 0
    shutil.rmtree(out)
    out.mkdir()
    code, _, errors = derive(derivable, out)
    assert code == 0, errors
    assert tree(out) == tree(derivable / "whole")


@pytest.mark.usefixtures("streams")
def test_two_outputs_share_a_scratch_folder_and_one_output_is_not_derived_twice_at_once(
    derivable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, note = tmp_path / "scratch", Scratch.note
    ended: list[tuple[int, str]] = []

    def notes(self: Scratch, **found: Any) -> None:
        note(self, **found)
        if found.get("se-states") == 2:
            monkeypatch.setattr(Scratch, "note", note)
            for out in ("first", "second"):
                code, _, errors = derive(derivable, tmp_path / out, "--scratch", scratch)
                ended.append((code, errors))

    monkeypatch.setattr(Scratch, "note", notes)
    code, _, errors = derive(derivable, tmp_path / "first", "--scratch", scratch)
    assert code == 0, errors
    assert [code for code, _ in ended] == [21, 0]
    assert f"is in use: process {os.getpid()} on " in ended[0][1]
    assert tree(tmp_path / "first") == tree(tmp_path / "second") == tree(derivable / "whole")
    assert not list(scratch.iterdir())


@pytest.mark.usefixtures("streams")
def test_scratch_files_and_output_share_the_room_of_one_disk(
    derivable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, printed, _ = derive(derivable, tmp_path / "out", "--dry-run", "--json")
    plan = json.loads(printed)["plan"]
    needed = plan["scratch_bytes"] + plan["output_bytes"]
    usage = shutil.disk_usage(tmp_path)
    for free, wanted in ((needed, 0), (needed - 1, 12)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        more = ["--dry-run", "--optimizer", "adamw"]
        code, _, errors = derive(derivable, tmp_path / "out", *more)
        assert code == wanted, errors
    assert f"needs {plan['scratch_bytes']:,} bytes of scratch files" in errors
    assert f"and {plan['scratch_bytes'] - 1:,} are free for them in {tmp_path}" in errors
    assert "free space, name a folder on another disk with scratch" in errors
    assert not list(tmp_path.iterdir())


def test_components_of_a_base_in_shards_may_be_one_file(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", shard="4KB")
    write_data(tmp_path / "data.jsonl")
    assert derive(tmp_path, tmp_path / "work")[0] == 0
    components = [tmp_path / "work" / name for name in ("se", "osm")]
    for component in components:
        assert not (component / "model.safetensors.index.json").exists()
    code, _, errors = run(
        "build", base, "--se", components[0], "--osm", components[1], "-o", tmp_path / "x.patchc"
    )
    assert code == 0, errors
