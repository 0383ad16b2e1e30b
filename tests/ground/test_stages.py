"""Kept stages: made once for the same inputs, whole or not at all, whatever stops them."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from directions import Failing

from patchc.errors import InUseError, OutputError, StorageError
from patchc.stages import Stages, file_digest


def writing(text: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / "result").write_text(text)

    return make


def refusing(_: Path) -> None:
    raise AssertionError("the stage is made again")


def interrupted(_: Path) -> None:
    raise KeyboardInterrupt


def result(folder: Path) -> str:
    return (folder / "deep" / "result").read_text()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def stages(work: Path) -> Stages:
    return Stages(work)


def test_a_stage_is_made_once_for_the_same_inputs(stages: Stages, work: Path) -> None:
    inputs = {"rate": 0.5, "files": ["ab", "cd"], "nested": {"x": None, "y": True}}
    assert not stages.done("fit", inputs)
    assert stages.run("fit", inputs, writing("one")) == work / "fit"
    assert stages.done("fit", inputs)
    again = {"nested": {"y": True, "x": None}, "files": ("ab", "cd"), "rate": 0.5}
    assert Stages(work).run("fit", again, refusing) == work / "fit"
    assert result(work / "fit") == "one"
    assert names(work) == {"fit"}
    stamp = json.loads((work / "fit" / "stage.json").read_text())
    assert stamp.keys() == {"inputs", "seconds"}
    assert stamp["inputs"] == inputs | {"files": ["ab", "cd"]}
    assert stamp["seconds"] >= 0


@pytest.mark.parametrize(
    "other", [{}, {"a": 2}, {"a": "1"}, {"a": True}, {"a": 1, "b": None}, {"a": [1]}]
)
def test_other_inputs_make_a_stage_again(stages: Stages, work: Path, other: dict[str, Any]) -> None:
    stages.run("fit", {"a": 1}, writing("one"))
    assert not stages.done("fit", other)

    def make(folder: Path) -> None:
        assert not list(folder.iterdir())
        assert result(work / "fit") == "one"
        (folder / "other").touch()

    stages.run("fit", other, make)
    assert names(work / "fit") == {"other", "stage.json"}
    assert names(work) == {"fit"}
    assert stages.done("fit", other)
    assert not stages.done("fit", {"a": 1})


def test_numbers_as_keys_are_the_names_they_have_in_json(stages: Stages) -> None:
    stages.run("fit", {"layers": {9: "a", 10: "b"}}, writing("one"))
    stages.run("fit", {"layers": {"10": "b", "9": "a"}}, refusing)
    stages.run("fit", {"layers": {9: "a", 10: "b"}}, refusing)


def test_inputs_that_json_has_no_form_for_are_refused_at_once(stages: Stages, work: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        stages.run("fit", {"path": work}, refusing)
    assert not work.exists()


def test_stages_do_not_touch_each_other(stages: Stages, work: Path) -> None:
    stages.run("fit", {}, writing("one"))
    stages.run("fit.more", {"a": 1}, writing("two"))
    stages.run("fit", {"a": 1}, writing("three"))
    assert (result(work / "fit"), result(work / "fit.more")) == ("three", "two")
    assert names(work) == {"fit", "fit.more"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [False, True])
def test_a_stage_that_raises_leaves_what_was_there(
    stages: Stages, work: Path, error: type[BaseException], before: bool
) -> None:
    if before:
        stages.run("fit", {"a": 1}, writing("one"))

    def make(folder: Path) -> None:
        writing("half")(folder)
        raise error("stopped")

    with pytest.raises(error, match="stopped"):
        stages.run("fit", {"a": 2}, make)
    assert before == work.exists()
    assert not before or names(work) == {"fit"}
    assert stages.done("fit", {"a": 1}) == before
    assert not stages.done("fit", {"a": 2})
    stages.run("fit", {"a": 2}, writing("two"))
    assert result(work / "fit") == "two"


KILLED = """
import os, signal, sys
from pathlib import Path
from patchc.stages import Stages

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def make(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "result").write_text("two")
    if sys.argv[2] == "make":
        kill()

def killing(number, calls=[], rename=os.rename):
    def call(*arguments):
        calls.append(None)
        if len(calls) == number:
            kill()
        return rename(*arguments)
    return call

if sys.argv[2] == "stamp":
    Path.write_text = lambda *_, write=Path.write_text, **options: (
        kill() if _[0].name == "stage.json" else write(*_, **options)
    )
if sys.argv[2] == "set aside":
    os.rename = killing(1)
if sys.argv[2] == "replace":
    os.rename = killing(2)
Stages(Path(sys.argv[1])).run("fit", {"a": 2}, make)
"""


@pytest.mark.parametrize("moment", ["make", "stamp", "set aside", "replace"])
def test_a_killed_stage_is_not_there_and_is_made_again(
    stages: Stages, work: Path, moment: str
) -> None:
    stages.run("fit", {"a": 1}, writing("one"))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(work), moment],
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not stages.done("fit", {"a": 2})
    assert names(work) != {"fit"}
    if moment == "replace":
        assert not (work / "fit").exists()
    else:
        assert result(stages.run("fit", {"a": 1}, refusing)) == "one"
    with pytest.raises(KeyboardInterrupt):
        stages.run("fit", {"a": 3}, interrupted)
    assert result(stages.run("fit", {"a": 1}, refusing)) == "one"
    assert names(work) == {"fit"}


@pytest.mark.parametrize(
    "stamp",
    [
        b"",
        b'{"inputs": {"a"',
        b"\xff\xfe",
        b"[]",
        b"7",
        b"{}",
        b'{"inputs": {"a": 1}}',
        b'{"inputs": {"a": 1}, "seconds": 1.5, "more": 1}',
        b'{"inputs": {"a": 1}, "seconds": "soon"}',
        b"[" * 100_000,
    ],
)
def test_a_stamp_that_is_not_ours_means_not_made(stages: Stages, work: Path, stamp: bytes) -> None:
    stages.run("fit", {"a": 1}, writing("one"))
    (work / "fit" / "stage.json").write_bytes(stamp)
    assert not stages.done("fit", {"a": 1})
    stages.run("fit", {"a": 1}, writing("two"))
    assert result(work / "fit") == "two"
    assert stages.done("fit", {"a": 1})


def test_what_a_kill_left_beside_a_stage_that_was_done_is_removed(
    stages: Stages, work: Path
) -> None:
    """Between the stage's name and the end of its lock."""
    stages.run("fit", {}, writing("one"))
    (work / ".fit.patchc-lock").write_text("{}")
    stages.run("fit", {}, refusing)
    assert names(work) == {"fit"}


def test_seconds_are_those_of_the_stage_that_is_there(stages: Stages, work: Path) -> None:
    assert stages.seconds("fit") is None
    stages.run("fit", {"a": 1}, writing("one"))
    stamp = work / "fit" / "stage.json"
    stamp.write_text(json.dumps({"inputs": {"a": 2}, "seconds": 12.5}))
    assert stages.seconds("fit") == 12.5
    stamp.write_bytes(b"half")
    assert stages.seconds("fit") is None


def test_what_no_stage_made_is_left_alone(stages: Stages, work: Path) -> None:
    (work / "fit").mkdir(parents=True)
    (work / "fit" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="move it away"):
        stages.run("fit", {}, refusing)
    assert (work / "fit" / "thesis.txt").read_text() == "mine"
    assert names(work) == {"fit"}


def test_what_appears_while_a_stage_is_made_is_left_alone(stages: Stages, work: Path) -> None:
    def make(_: Path) -> None:
        (work / "fit").mkdir()
        (work / "fit" / "thesis.txt").write_text("mine")

    with pytest.raises(OutputError, match="move it away"):
        stages.run("fit", {}, make)
    assert (work / "fit" / "thesis.txt").read_text() == "mine"
    assert names(work) == {"fit"}


def test_a_file_with_the_name_of_a_stage_is_left_alone(stages: Stages, work: Path) -> None:
    work.mkdir()
    (work / "fit").write_text("mine")
    assert not stages.done("fit", {})
    with pytest.raises(OutputError, match="move it away"):
        stages.run("fit", {}, refusing)
    assert (work / "fit").read_text() == "mine"


def test_an_empty_folder_is_taken(stages: Stages, work: Path) -> None:
    (work / "fit").mkdir(parents=True)
    assert result(stages.run("fit", {}, writing("one"))) == "one"


def test_a_link_to_another_disk_stays_one(stages: Stages, work: Path, tmp_path: Path) -> None:
    work.mkdir()
    (work / "fit").symlink_to(tmp_path / "elsewhere")
    for a, text in enumerate(("one", "two")):
        stages.run("fit", {"a": a}, writing(text))
        assert result(tmp_path / "elsewhere") == text
        assert (work / "fit").is_symlink()
    assert names(tmp_path) == {"work", "elsewhere"}


def test_one_process_at_a_time_makes_a_stage(stages: Stages, work: Path) -> None:
    def make(_: Path) -> None:
        with pytest.raises(InUseError, match=f"process {os.getpid()} on "):
            Stages(work).run("fit", {}, refusing)

    stages.run("fit", {}, make)
    assert names(work) == {"fit"}


# The operating system ----------------------------------------------------------------------------


def test_a_refusal_of_the_operating_system_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for call in (Stages(tmp_path / "file").run, lambda *_: file_digest(tmp_path / "none")):
        with pytest.raises(StorageError, match=str(tmp_path)):
            call("fit", {}, refusing)


def test_the_stage_before_comes_back_where_the_new_one_cannot_take_its_place(
    stages: Stages, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages.run("fit", {"a": 1}, writing("one"))

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", Failing(os.rename, 1, errno.EPERM))
        with pytest.raises(StorageError, match="not permitted"):
            stages.run("fit", {"a": 2}, writing("two"))
    assert result(stages.run("fit", {"a": 1}, refusing)) == "one"
    assert names(work) == {"fit"}


@pytest.mark.parametrize("size", [0, 5, (1 << 20) + 7])
def test_a_file_digest_is_blake3_of_its_content(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == blake3(content).hexdigest()
