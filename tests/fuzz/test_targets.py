"""A minute of fuzzing that is the same in each run, and that it finds what is there to be found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fuzzing import fixed
from fuzzing.report import name_of
from fuzzing.seeds import MAKERS
from fuzzing.target import MEMORY, REGRESSIONS, Target, attempt
from fuzzing.targets import TARGETS, json_values, patch_reader, rice

from patchc import strict_json
from patchc.errors import PatchFormatError
from patchc.formats.codecs import gap_tiles
from patchc.formats.container import column_codec

_PARTS = 4
REGRESSION_INPUTS = sorted(path for path in REGRESSIONS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("part", range(_PARTS))
@pytest.mark.parametrize("name", TARGETS)
def test_mutated_inputs_are_read_or_refused(name: str, part: int, tmp_path: Path) -> None:
    target = TARGETS[name]
    seeds, count = target.seeds(), target.executions // _PARTS
    found = fixed.run(target, seeds, count, part, measured=part == 0)
    for finding in found:
        (tmp_path / name_of(finding.data)).write_bytes(finding.data)
    told = [f"{finding.place} ({name_of(finding.data)}): {finding.error!r}" for finding in found]
    assert not told, f"inputs are in {tmp_path}"


@pytest.mark.parametrize(
    "path", REGRESSION_INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_what_was_once_found_stays_mended(path: Path) -> None:
    target = TARGETS[path.parent.name]
    with fixed.traced(True):
        error = attempt(target, path.read_bytes()) or fixed.memory_fault(target)
    if error:
        raise error


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_takes_some_of_its_seeds(name: str) -> None:
    target = TARGETS[name]
    taken = 0
    for seed in target.seeds():
        try:
            target.read(seed)
        except target.refusals:
            continue
        taken += 1
    assert 0 < len(target.seeds()) <= 2 * taken
    assert target.memory >= MEMORY
    assert name in MAKERS


def _found(target: Target, count: int) -> list[str]:
    return [finding.place for finding in fixed.run(target, target.seeds(), count)]


def test_a_planted_crash_is_found_behind_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check of the index that is missing: the mutators reach it behind the root digest."""
    read = column_codec.ColumnReader.numbers

    def numbers(self: column_codec.ColumnReader, count: int, widest: int) -> object:
        try:
            return read(self, count, widest)  # type: ignore[arg-type]
        except PatchFormatError:
            raise IndexError("planted") from None

    monkeypatch.setattr(column_codec.ColumnReader, "numbers", numbers)
    places = _found(TARGETS["patch_reader"], 300)
    assert any(place.startswith("IndexError") for place in places)


def test_a_planted_wrong_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A codec that loses the sign of a step."""

    def decode(*given: object) -> tuple[int, int]:
        count, end = gap_tiles.decode_changes(*given)  # type: ignore[arg-type]
        steps = given[-1]
        steps[:count] = abs(steps[:count])  # type: ignore[index]
        return count, end

    monkeypatch.setattr("patchc.formats.codecs.rice.decode_changes", decode)
    assert any("BrokenPromise" in place for place in _found(TARGETS["rice"], 300))


def test_a_planted_hole_in_the_json_reader_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "_finite_number", float)
    assert any("BrokenPromise" in place for place in _found(TARGETS["json_values"], 1000))


def test_planted_greed_is_found() -> None:
    """A reader that takes more than the caps of its format."""
    target = replace(TARGETS["options"], read=lambda _: len(np.empty(80 << 20, np.uint8)))
    assert fixed.run(target, target.seeds(), 3) == []
    (found,) = fixed.run(target, target.seeds(), 3, measured=True)
    assert isinstance(found.error, MemoryError)


def test_inputs_are_the_same_in_each_run() -> None:
    for target in (patch_reader.TARGET, rice.TARGET, json_values.TARGET):
        seeds = target.seeds()
        first, second = ([*fixed.inputs(target, seeds, 60)] for _ in range(2))
        assert first == second
        assert len(set(first)) > 50
        assert first != [*fixed.inputs(target, seeds, 60, part=1)]


def test_a_text_that_is_not_escaped_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("escaping", "cli.output", "cli.streams"):
        monkeypatch.setattr(f"patchc.{name}.visible", str)
    assert any("BrokenPromise" in place for place in _found(TARGETS["screens"], 150))
