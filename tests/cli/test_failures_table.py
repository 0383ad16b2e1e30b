"""The table of docs/reference/failures.md, row by row and command by command, against real runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cases import GROUP_BYTES, Case, Place, content, on_its_own, stamps, write_cases
from command_line import run
from loading import write_derive_case
from scenes import FULL, IN_PROCESS, KILLED, SCENES, watch
from streaming import streaming

from patchc.patching import pending_groups

ROOT = Path(__file__).parents[2]
NOTHING = "\N{EN DASH}"
GROUPS = {
    "copy": ("apply -o", "revert -o"),
    "in place": ("apply --in-place", "revert --in-place"),
    "patch": ("build", "diff", "fold"),
}
PROCESS = """
import sys
from pathlib import Path

sys.path[:0] = sys.argv[3:5]
fault, folder = sys.argv[1:3]
del sys.argv[1:5]

from cases import Case, Place
from scenes import SCENES, watch
from patchc.cli.entry import main

if sys.argv[1] == "derive":
    from streaming import streaming

    streams = streaming()
    streams.__enter__()
watch(SCENES[fault], Place(Path(folder), Case("", (), ())))
main()
"""


@dataclass(frozen=True)
class Row:
    """One fault and one command of the table."""

    fault: str
    command: str
    code: int
    message: str
    then: str


def _rows() -> list[Row]:
    lines = (ROOT / "docs/reference/failures.md").read_text().splitlines()
    start = lines.index("| fault | command | code | message | then |") + 2
    rows = []
    for line in lines[start : lines.index("", start)]:
        fault, commands, code, message, then = (cell.strip() for cell in line.strip("|").split("|"))
        for name in commands.split(", "):
            rows += [
                Row(fault, command, int(code), message, then)
                for command in GROUPS.get(name, (name,))
            ]
    return rows


ROWS = _rows()


def test_the_table_has_every_fault() -> None:
    assert {row.fault for row in ROWS} == set(SCENES)
    assert len(ROWS) > 90


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    cases = write_cases(tmp_path_factory.mktemp("cases"), layers=3, rows=50)
    return cases | {"derive": write_derive_case(tmp_path_factory.mktemp("derive"))}


@pytest.fixture(autouse=True)
def derivations_stream() -> Iterator[None]:
    """``derive`` leaves most behind if it has scratch files."""
    with streaming():
        yield


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.fault}, {row.command}")
def test_what_the_table_says_happens(
    cases: dict[str, Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: Row
) -> None:
    monkeypatch.setattr(pending_groups, "GROUP_BYTES", GROUP_BYTES)
    case = cases[row.command]
    if row.command in ("apply -o", "revert -o", "verify"):
        case = on_its_own(case)
    place = Place(tmp_path / "place", case).fill()
    scene = SCENES[row.fault]
    end = scene.before(place)
    before = content(place.model if place.model.exists() else None)
    hidden, inputs = place.hidden(), stamps(case.inputs)
    code, errors = _run(row, place)
    assert code == row.code, errors
    assert row.message == NOTHING or row.message in " ".join(errors.split())
    assert stamps(case.inputs) == inputs
    assert scene.makes_output or not row.code or not place.out.exists()
    if row.code and "meanwhile" not in row.fault and "take it back" not in row.then:
        assert content(place.model if place.model.exists() else None) == before
        assert scene.how == KILLED or place.hidden() == hidden
    end()
    if not row.code:
        _check_success(place, any_mode="Permission bits" in row.fault)
    _check_then(row, place)


def _run(row: Row, place: Place) -> tuple[int, str]:
    """Run the command while the fault lasts: its exit code and what it says."""
    scene, case = SCENES[row.fault], place.case
    intact = {"intact": case.source}
    arguments = [part.format(model=place.model, out=place.out) for part in case.command]
    arguments += [part.format(**intact) for part in scene.more]
    if scene.how != IN_PROCESS:
        return _run_process(row, place, arguments)
    end = watch(scene, place)
    try:
        code, _, errors = run(*arguments)
    finally:
        end()
    return code, errors


def _run_process(row: Row, place: Place, arguments: list[str]) -> tuple[int, str]:
    paths = [str(ROOT / "tests" / name) for name in ("torture", "support")]
    command = [sys.executable, "-c", PROCESS, row.fault, str(place.folder), *paths, *arguments]
    full = SCENES[row.fault].how == FULL
    with Path("/dev/full" if full else os.devnull).open("w") as out:
        ended = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    return _as_in_a_shell(ended.returncode), ended.stderr


def _as_in_a_shell(code: int) -> int:
    return code if code >= 0 else 128 - code


def _check_success(place: Place, any_mode: bool = False) -> None:
    if "{out}" in place.case.command:
        assert place.state(any_mode) == "complete"
    elif place.case.wanted:
        assert place.holds(place.case.wanted)
    assert not place.hidden()
    assert not list(place.folder.glob("*.patchc-scratch-*"))


def _check_then(row: Row, place: Place) -> None:
    """What the table says to do leads on, once the fault is over."""
    case = place.case
    if "bring it back" in row.then and case.source:
        for shard in case.source.glob("*.safetensors"):
            if not (place.model / shard.name).exists():
                shutil.copy(shard, place.model)
    if "take it back" in row.then:
        twin = place.twin()
        code, _, errors = run(*twin.arguments(case.back))
        assert code == 0, errors
        assert twin.holds(case.source)
    if "run it again" in row.then:
        code, _, errors = run(*place.arguments(case.command))
        assert code == 0, errors
        _check_success(place)
    if "write a copy" in row.then:
        copy = [part for part in case.command if part != "--in-place"]
        code, _, errors = run(*place.arguments((*copy, "-o", "{out}")))
        assert code == 0, errors
