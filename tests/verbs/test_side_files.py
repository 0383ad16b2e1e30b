"""Side files in any state: what apply, revert and verify make of them, by a table of its own."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from hypothesis import given, settings
from hypothesis import strategies as st
from side_updates import (
    CARDS,
    OTHER,
    Contents,
    Side,
    Update,
    contents_of,
    write_sides_model,
    write_updates,
)
from tiny_checkpoints import tree

import patchc

VERBS = {"result": patchc.apply, "base": patchc.revert}


@pytest.fixture(scope="module")
def updates(tmp_path_factory: pytest.TempPathFactory) -> list[Update]:
    return write_updates(tmp_path_factory.mktemp("updates"))


@dataclass(frozen=True)
class Case:
    """A receiver's model, and how it is run."""

    update: Update
    weights: str
    files: Contents
    keep: bool
    strict: bool

    def apart(self, side: Side) -> set[str]:
        return {name for name, own in self.files.items() if own != self.update.on(side)[name]}

    def refused(self, names: set[str]) -> set[str]:
        if self.strict:
            return names
        return set() if self.keep else names - set(CARDS)

    def side(self) -> str:
        """What the model is, by its weights; by its files where the patch changes no weights."""
        if self.update.weights or self.weights == "other":
            return self.weights
        telling = (set(self.files) - set(CARDS)) or set(self.files)
        told = {side for side in OTHER if telling - self.apart(side)}
        return told.pop() if len(told) == 1 else "neither side"

    def outcome(self, target: Side) -> int:
        """The exit code of a copy: the weights are asked first."""
        side = self.side()
        if side in ("mixed", "other"):
            return 10 if side == "mixed" else 7
        if side == target:
            return 8 if target == "result" else 9
        return 24 if self.refused(self.apart(OTHER[target])) else 0

    def outcome_in_place(self) -> int:
        if self.refused(set(self.files)):
            return 4
        return 7 if self.weights == "other" else 0

    def copy(self, folder: Path, target: Side) -> dict[str, bytes]:
        """The copy: what is the source's becomes the target's, and the rest stays."""
        held = target if self.update.weights else self.weights
        left = self.apart(OTHER[target])
        made = self.update.on(target)
        files = {name: own if name in left else made[name] for name, own in self.files.items()}
        return contents_of(write_sides_model(folder, held, files))


@st.composite
def cases(draw: st.DrawFn, update: Update) -> Case:
    weights = ["base", "base", "result", "other", "mixed"] if update.weights else ["base", "other"]
    sides: list[Side] = ["base", "result"]
    usual = update.on(draw(st.sampled_from(sides)))
    files = {
        name: draw(st.sampled_from([usual[name], usual[name], *both, b"mine", None]))
        for name, both in update.files.items()
    }
    keep, strict = draw(st.sampled_from([(False, False), (True, False), (False, True)]))
    return Case(update, draw(st.sampled_from(weights)), files, keep, strict)


def _code(call: Any, *args: Any, **options: Any) -> tuple[int, Any]:
    try:
        return 0, call(*args, **options)
    except patchc.PatchcError as error:
        return error.exit_code, error


@settings(max_examples=100)
@given(st.data())
def test_a_copy(updates: list[Update], data: st.DataObject) -> None:
    case = data.draw(cases(data.draw(st.sampled_from(updates))))
    for target, verb in VERBS.items():
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            model, out = write_sides_model(place / "model", case.weights, case.files), place / "out"
            before = tree(model)
            options = {"keep_side_files": case.keep, "strict_side_files": case.strict}
            code, report = _code(verb, case.update.patch, model, out=out, **options)
            assert code == case.outcome(target), report
            assert tree(model) == before
            assert out.exists() == (code == 0)
            left = case.apart(OTHER[target])
            if code == 0:
                assert {one.name for one in report.left_alone} == left
                assert {one.name for one in report.written} == set(case.files) - left
                assert contents_of(out) == case.copy(place / "expected", target)
                assert report.side_files == len(contents_of(out)) - 1
            elif code == 24:
                refused = case.refused(left)
                assert {name for name in case.files if repr(name) in str(report)} == refused


@settings(max_examples=40)
@given(st.data())
def test_in_place(updates: list[Update], data: st.DataObject) -> None:
    """Side files stay as they are; a repeated run, and one from between, end well."""
    case = data.draw(cases(data.draw(st.sampled_from(updates))))
    for target, verb in VERBS.items():
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            model = write_sides_model(place / "model", case.weights, case.files)
            before = contents_of(model)
            options = {"keep_side_files": case.keep, "strict_side_files": case.strict}
            code, report = _code(verb, case.update.patch, model, in_place=True, **options)
            assert code == case.outcome_in_place(), report
            if code:
                assert contents_of(model) == before
                continue
            held = target if case.update.weights else case.weights
            assert contents_of(model) == contents_of(
                write_sides_model(place / "expected", held, case.files)
            )
            assert {one.name for one in report.left_alone} == case.apart(target)


@settings(max_examples=40)
@given(st.data())
def test_verify(updates: list[Update], data: st.DataObject) -> None:
    case = data.draw(cases(data.draw(st.sampled_from(updates))))
    side = case.side()
    with tempfile.TemporaryDirectory() as name:
        model = write_sides_model(Path(name) / "model", case.weights, case.files)
        before = tree(model)
        options = {"keep_side_files": case.keep, "strict_side_files": case.strict}
        report = patchc.verify(case.update.patch, model, **options)
        flags = [f"--{name.replace('_', '-')}" for name, given in options.items() if given]
        code, _, errors = run("verify", case.update.patch, model, *flags)
        assert tree(model) == before
    found = {one.name: one for one in report.side_files}
    if side in ("other", "mixed"):
        assert (report.state, code) == (
            ("neither", 7) if side == "other" else ("partly patched", 10)
        )
        apart = case.apart("base") & case.apart("result") if side == "mixed" else set()
        assert set(found) == apart
        return
    assert report.state == ("patched" if side == "result" else "base")
    assert set(found) == case.apart("result" if side == "result" else "base")
    refused = case.refused(set(found))
    assert {name for name, one in found.items() if one.refused} == refused
    assert code == (24 if refused else 0), errors
