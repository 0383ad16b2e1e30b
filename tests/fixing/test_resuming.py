"""A fix that was interrupted, killed or changed goes on from what it has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fix_runs import FILES, OPTIONS, fix, write_requests
from safetensors.torch import load_file, save_file

from patchc.errors import (
    InUseError,
    StorageError,
)
from patchc.fitting.fit_options import Limit
from patchc.fixing import stages
from patchc.progress import ProgressEvent


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


def without_seconds(out: Path) -> dict[str, Any]:
    report = json.loads((out / "report.json").read_bytes())
    places = ("seconds", "out", "recipe", "page")
    return {name: value for name, value in report.items() if name not in places}


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
import fix_runs

def end(event):
    if (event.stage, event.done) == ("fit", 3):
        os._exit(9)

fix_runs.fix(Path(sys.argv[1]), Path(sys.argv[2]), progress=end)
"""


def test_a_killed_fit_goes_on_from_its_last_step(folder: Path, tmp_path: Path) -> None:
    out, events = tmp_path / "out", list[ProgressEvent]()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    line = [sys.executable, "-c", KILLED, str(folder), str(out)]
    assert subprocess.run(line, env=environment).returncode == 9
    assert {path.name for path in out.iterdir()} == {".work.patchc-lock", "work"}
    fix(folder, out, progress=events.append)
    assert {path.name for path in out.iterdir()} == {*FILES, "work"}
    assert {event.stage for event in events}.isdisjoint({"tune margin", "ask the base"})
    assert [event.done for event in events if event.stage == "fit"] == [4, 5]
    assert (out / "fix.patchc").read_bytes() == (folder / "fixed/fix.patchc").read_bytes()
    assert {path.name for path in (out / "work").iterdir()} == {
        path.name for path in (folder / "fixed/work").iterdir()
    }


def test_one_fix_at_a_time_works_in_a_folder(folder: Path, tmp_path: Path) -> None:
    refused = list[str]()

    def second(_: ProgressEvent) -> None:
        if not refused:
            with pytest.raises(InUseError, match=f"process {os.getpid()} on ") as raised:
                fix(folder, tmp_path / "out")
            refused.append(str(raised.value))

    fix(folder, tmp_path / "out", progress=second)
    assert refused[0].startswith(f"{tmp_path / 'out'} is in use: ")
    assert contents(tmp_path / "out")["fix.patchc"] == contents(folder / "fixed")["fix.patchc"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*FILES, "work"}


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


def test_a_derivation_that_rounds_otherwise_is_fitted_anew(folder: Path, tmp_path: Path) -> None:
    """Derived again, perhaps on another machine, the models differ in their last bits."""
    out, events = tmp_path / "out", list[ProgressEvent]()
    shutil.copytree(folder / "fixed", out)
    component = out / "work/derived/margin/component.safetensors"
    tensors = load_file(component)
    tensors = {name: value * (1 + 2**-20) for name, value in tensors.items()}
    save_file(tensors, component)
    found = json.loads((out / "work/derived/found.json").read_bytes())
    (out / "work/derived/found.json").write_text(json.dumps({**found, "weights": "others"}))
    options = replace(OPTIONS, fit=replace(OPTIONS.fit, limits=(Limit("degenerate", 100.0),)))
    fix(folder, out, options=options, progress=events.append)
    assert {"fit", "ask the base"} <= {event.stage for event in events}


def test_a_split_that_lost_a_file_is_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "fixed", tmp_path / "out")
    shutil.rmtree(tmp_path / "out/work/split/test")
    with pytest.raises(StorageError, match="split"):
        fix(folder, tmp_path / "out")


def test_a_start_that_was_killed_is_gone_on_with(folder: Path, tmp_path: Path) -> None:
    (tmp_path / ".work.0123abcd.partial").mkdir()
    (tmp_path / ".work.patchc-lock").touch()
    with pytest.raises(StopError):
        fix(folder, tmp_path, progress=stop_at("ask base", 1))
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
