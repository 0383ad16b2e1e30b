"""A landscape file goes on, takes more places, and refuses what is not its own."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import landscape_inputs
import pytest
from evaluate_inputs import HARMFUL
from landscape_inputs import ASKING, OPTIONS, Look, World, by_first_letter
from landscape_lines import DAMAGED
from tiny_llama import write_data

import patchc
from patchc.errors import EvaluateError
from patchc.landscapes import survey
from patchc.landscapes.curves import Landscape

PLACES = 12 + 18


def measured_again(world: World, out: Path, **changes: Any) -> tuple[Any, int]:
    """Go on with a file; how many replies the judge then saw, and the report."""
    seen: list[str] = []

    @functools.wraps(by_first_letter)
    def judge(prompts: Any, replies: Any) -> list[bool]:
        seen.extend(replies)
        return by_first_letter(prompts, replies)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(landscape_inputs, "by_first_letter", judge)  # known by its name
        report = world.look(out, asking=replace(ASKING, judge=judge), **changes)
    return report, len(seen)


def no_model(*_: object) -> None:
    raise AssertionError("the model was loaded")


def test_progress_names_every_place(look: Look) -> None:
    events = [one for one in look.events if one.stage == "landscape"]
    assert [one.done for one in events] == [*range(1, PLACES + 1)]
    assert {one.total for one in events} == {PLACES}
    assert events[0].detail == "patch 0"
    assert events[-1].detail == "patch 1, 1 0.5, 2 0.5"
    assert len(look.path.read_text().splitlines()) == 1 + PLACES


def test_an_interrupted_run_goes_on(world: World, look: Look, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"

    def interrupt(event: patchc.ProgressEvent) -> None:
        if event.stage == "landscape" and event.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.look(out, progress=interrupt)
    whole = look.path.read_bytes().splitlines(keepends=True)
    assert out.read_bytes() == b"".join(whole[:3])
    out.write_bytes(b"".join(whole[:9]) + whole[9][:70])  # a kill while the ninth place is written
    report, seen = measured_again(world, out)
    assert out.read_bytes() == look.path.read_bytes()
    assert seen == 4 * (7 + 5)
    for one in fields(Landscape):
        assert getattr(report, one.name) == getattr(look.report, one.name), one.name
    assert (report.data, report.openings) == (look.report.data, look.report.openings)


def test_a_whole_file_needs_no_model(
    world: World, look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "load_speaker", no_model)
    monkeypatch.setattr("patchc.verbs.landscape.apply", no_model)
    out = Path(shutil.copy(look.path, tmp_path / "out.jsonl"))
    events: list[patchc.ProgressEvent] = []
    report = world.look(out, progress=events.append)
    assert replace(report, out=look.path) == look.report
    assert out.read_bytes() == look.path.read_bytes()
    assert [one.done for one in events if one.stage == "landscape"][-1] == PLACES
    fewer = replace(OPTIONS, directions=1, line_points=0, plane_points=0)
    assert world.look(out, options=fewer).curves == look.report.curves


def test_more_places_are_added(world: World, look: Look, tmp_path: Path) -> None:
    out = Path(shutil.copy(look.path, tmp_path / "out.jsonl"))
    more = replace(OPTIONS, directions=3)
    report, seen = measured_again(world, out, options=more)
    assert seen == 4 * (7 + 5)
    assert out.read_bytes().startswith(look.path.read_bytes())
    added = map(json.loads, out.read_text().splitlines()[1 + PLACES :])
    assert [line["at"] for line in added] == [
        {"patch": side, "3": alpha} for alpha in (-0.5, 0.5) for side in (0.0, 1.0)
    ]
    assert [one.direction for one in report.curves] == ["1", "2", "3", "1", "2", "3", "patch"]
    kept = {one.direction: one for one in report.curves if one.subject == "patched"}
    assert kept["2"] == look.report.curves[3]


def other_requests(_: World, folder: Path) -> dict[str, Any]:
    prompts = [{"prompt": one} for one in (*HARMFUL[:-1], "a tea")]
    return {"harmful": write_data(folder / "other.jsonl", prompts)}


def other_template(world: World, folder: Path) -> dict[str, Any]:
    model = Path(shutil.copytree(world.base, folder / "model"))
    template = model / "chat_template.jinja"
    template.write_text(template.read_text().replace("<assistant>", "<system>"))
    return {"model": model}


def other_patch(world: World, folder: Path) -> dict[str, Any]:
    patchc.annotate(world.patch, out=folder / "other.patchc", name="other")
    return {"patch": folder / "other.patchc"}


def other_model(world: World, _: Path) -> dict[str, Any]:
    return {"model": world.tuned, "patch": None}


OTHERS: dict[str, Callable[[World, Path], dict[str, Any]]] = {
    "seed": lambda *_: {"options": replace(OPTIONS, seed=8)},
    "requests.*, judge": lambda *_: {"asking": replace(ASKING, judge="phrases")},
    "requests, judge or how they are asked": lambda *_: {
        "asking": replace(ASKING, max_new_tokens=4)
    },
    "requests, judge or how they are asked, .*": other_requests,
    "chat template or tokenizer": other_template,
    "patch": other_patch,
    "base, patch": other_model,
    "evaluate.*|.*counts": lambda *_: {"asking": replace(ASKING, limit=2)},
    ".*asked, chat": lambda *_: {"asking": replace(ASKING, system="brew")},
}


@pytest.mark.parametrize("told", OTHERS)
def test_a_file_of_other_inputs(
    world: World, look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.setattr(survey, "load_speaker", no_model)
    out = Path(shutil.copy(look.path, tmp_path / "out.jsonl"))
    changes = OTHERS[told](world, tmp_path)
    with pytest.raises(EvaluateError, match=f"landscape results of other inputs: {told}"):
        world.look(out, **changes)
    assert out.read_bytes() == look.path.read_bytes()


@pytest.mark.parametrize(
    "name", ["nothing", "NaN", "a reply less", "a set less", "a margin less", "NaN as a text"]
)
def test_damaged_lines(
    world: World, look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Lines that are none end a run that would go on, before a model is loaded."""
    monkeypatch.setattr(survey, "load_speaker", no_model)
    out, bad = tmp_path / "out.jsonl", DAMAGED[name]
    whole = look.path.read_text().splitlines()
    out.write_text("\n".join([*whole[:2], bad if type(bad) is str else json.dumps(bad), ""]))
    before = out.read_bytes()
    with pytest.raises(EvaluateError, match=r"out\.jsonl:3: not a line of landscape results"):
        world.look(out, patch=world.patch)
    assert out.read_bytes() == before
