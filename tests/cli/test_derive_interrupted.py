"""``patchc derive`` is interrupted or fails: what it leaves, and what goes on from there."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from derive_commands import derive, scratch_of
from streaming import streaming
from tiny_checkpoints import tree

from patchc.layered.scratch import Scratch


def interrupt_after(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    """Interrupt the run that notes something of this name, once it has."""
    note = Scratch.note

    def notes(self: Scratch, **found: Any) -> None:
        note(self, **found)
        if name in found:
            monkeypatch.setattr(Scratch, "note", note)
            raise error

    monkeypatch.setattr(Scratch, "note", notes)


@pytest.mark.parametrize("name", ["se-states", "se-tuned-sums-done", "report-se", "osm-course"])
def test_ctrl_c_says_that_the_same_command_goes_on(
    derivable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    interrupt_after(monkeypatch, name, KeyboardInterrupt())
    with streaming():
        code, _, errors = derive(derivable, tmp_path / "out")
    (scratch,) = scratch_of(tmp_path)
    assert (code, errors) == (
        130,
        f"patchc: interrupted; {scratch} keeps what is done, and the same command, run again, goes "
        "on\n",
    )
    # It goes on with its files, even if the model would fit.
    code, printed, errors = derive(derivable, tmp_path / "out", "--json")
    assert code == 0, errors
    assert json.loads(printed)["plan"]["streams"]
    assert tree(tmp_path / "out") == tree(derivable / "whole")
    assert not scratch_of(tmp_path)


def test_the_lock_of_a_killed_run_goes_where_its_output_was_complete(
    derivable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the name of the last direction and the end of its lock."""
    interrupt_after(monkeypatch, "osm-course", KeyboardInterrupt())
    with streaming():
        assert derive(derivable, tmp_path / "out")[0] == 130
    (tmp_path / "out" / ".se.patchc-lock").write_text("{}")
    code, _, errors = derive(derivable, tmp_path / "out")
    assert code == 0, errors
    assert tree(tmp_path / "out") == tree(derivable / "whole")


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("call", ["posix_fallocate", "pwritev", "write_text"])
def test_a_disk_that_fills_up_leaves_what_is_done(
    derivable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    owner: Any = Path if call == "write_text" else os
    works, calls = getattr(owner, call), 0

    def fills(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return works(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(owner, call, fills)
        code, _, errors = derive(derivable, tmp_path / "out")
    (scratch,) = scratch_of(tmp_path)
    assert code == 12
    assert f"{scratch}/" in errors
    assert "the disk is full; free space" in errors
    assert f"{scratch} keeps what is done, and the same command, run again, goes on" in errors
    assert not (tmp_path / "out/se").exists()
    code, _, errors = derive(derivable, tmp_path / "out")
    assert code == 0, errors
    assert tree(tmp_path / "out") == tree(derivable / "whole")
    assert not scratch_of(tmp_path)


def left_behind(derivable: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Interrupt a run, and return its scratch folder."""
    interrupt_after(monkeypatch, "se-tuned-sums-done", KeyboardInterrupt())
    with streaming():
        assert derive(derivable, folder / "out", "--seed", 1)[0] == 130
    (scratch,) = scratch_of(folder)
    return scratch


@pytest.mark.parametrize("streamed", [True, False])
def test_other_options_begin_anew(
    derivable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    left_behind(derivable, tmp_path, monkeypatch)
    if streamed:
        with streaming():
            code, _, errors = derive(derivable, tmp_path / "out")
    else:
        code, _, errors = derive(derivable, tmp_path / "out")
    assert code == 0, errors
    assert tree(tmp_path / "out") == tree(derivable / "whole")
    assert not scratch_of(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "chat_template.jinja"])
def test_another_base_begins_anew(
    derivable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "changing"
    folder.mkdir()
    shutil.copytree(derivable / "base", folder / "base")
    shutil.copy(derivable / "data.jsonl", folder)
    left_behind(folder, tmp_path, monkeypatch)
    file = folder / "base" / name
    if name == "chat_template.jinja":
        file.write_text(file.read_text().replace("<end>", "<end> <end>"))
    else:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    for out in ("out", "undisturbed"):
        with streaming():
            code, _, errors = derive(folder, tmp_path / out, "--seed", 1)
        assert code == 0, errors
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_a_direction_that_was_written_is_not_mixed_with_another_run(
    derivable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, "osm-course", KeyboardInterrupt())
    with streaming():
        assert derive(derivable, tmp_path / "out")[0] == 130
        (scratch,) = scratch_of(tmp_path)
        before = tree(tmp_path / "out")
        code, _, errors = derive(derivable, tmp_path / "out", "--seed", 1)
        assert code == 11
        assert "out/se is not empty" in errors
        assert tree(tmp_path / "out") == before
        assert scratch.exists()
        assert derive(derivable, tmp_path / "out")[0] == 0
    assert tree(tmp_path / "out") == tree(derivable / "whole")


@pytest.mark.usefixtures("streams")
def test_an_error_that_would_come_again_leaves_no_scratch_files(
    derivable: Path, tmp_path: Path
) -> None:
    code, _, errors = derive(
        derivable, tmp_path / "out", "--se-learning-rate", "1e38", "--clip", "0"
    )
    assert code in (14, 15), errors
    assert not scratch_of(tmp_path)
    assert not (tmp_path / "out/se").exists()
