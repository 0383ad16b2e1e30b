"""Small files beside outputs, damaged or a stranger's: never a traceback, nothing believed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from patchc import extras
from patchc.errors import InUseError
from patchc.locks import LockFile
from patchc.moves import unfinished
from patchc.stages import Stages
from patchc.strict_json import MOST_NESTED

DAMAGED = {
    "empty": b"",
    "no JSON": b"\xff\xfe",
    "a list": b"[]",
    "a number": b"1",
    "nested": b"[" * 100_000,
    "twice": b'{"inputs": {}, "inputs": {}, "seconds": 1.0}',
    "not finite": b'{"inputs": {}, "seconds": NaN}',
    "beyond numbers": b'{"inputs": {}, "seconds": 1e999}',
    "beyond 64 bits": b'{"inputs": ' + b"9" * 5000 + b', "seconds": 1.0}',
    "deeper": b'{"inputs": ' + b"[" * MOST_NESTED + b"]" * MOST_NESTED + b', "seconds": 1.0}',
    "half": b'{"inputs": "\\ud800", "seconds": 1.0}',
    "large": b" " * (5 << 20) + b'{"inputs": {}, "seconds": 1.0}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_stage_with_a_damaged_stamp_is_made_again(tmp_path: Path, content: bytes) -> None:
    stages = Stages(tmp_path)
    stages.run("fit", {}, lambda _: None)
    assert stages.done("fit", {})
    (tmp_path / "fit/stage.json").write_bytes(content)
    assert not stages.done("fit", {})
    assert stages.seconds("fit") is None
    stages.run("fit", {}, lambda folder: (folder / "made").touch())
    assert (tmp_path / "fit/made").exists()


@pytest.mark.parametrize(
    "content",
    [
        *DAMAGED.values(),
        b'[["moved", [1, 2]]]',
        b'{"moved": 1, "../outside": [1, 2]}',
        b'{"/etc": [1, 2]}',
        b'{"..": [1, 2]}',
        b'{"moved": {}}',
    ],
)
def test_a_damaged_list_of_moves_moves_nothing(tmp_path: Path, content: bytes) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for path in (tmp_path / "outside", out / "moved"):
        path.touch()
    (out / ".x.moves").write_bytes(content)
    (out / ".x.partial").mkdir()
    assert unfinished(out / ".x.moves") == []
    (out / ".x.moves").unlink()
    os.mkfifo(out / ".x.moves")
    assert unfinished(out / ".x.moves") == []


@pytest.mark.parametrize("pid", [-1, 0, 2**31, 2**63, True, "1", None, [1], 1e300])
def test_a_lock_of_an_owner_that_no_process_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: object
) -> None:
    """Where the file system has no locks, the owner that the file names counts."""
    path = tmp_path / "lock"
    owner = {"pid": pid, "host": os.uname().nodename, "since": "x" * 200, "command": 7}
    path.write_text(json.dumps(owner))

    def unsupported(*_: object) -> None:
        raise OSError(38, "no locks")

    monkeypatch.setattr("fcntl.flock", unsupported)
    monkeypatch.setattr("os.kill", lambda *_: pytest.fail("signals a process"))
    monkeypatch.setattr("patchc.locks._PAUSE", 0)
    with pytest.raises(InUseError, match="the output is in use") as refused:
        LockFile(path, "the output")
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    "content",
    [
        None, "[]", "{", "[" * 100_000, '{"url": 7}', '{"url": "file:///x", "dir_info": []}',
        '{"url": "https://x", "vcs_info": {"vcs": "git"}}',
        '{"url": "https://x", "vcs_info": "git"}',
        '{"url": "http://[", "dir_info": {}}',
    ],
)  # fmt: skip
def test_the_installers_note_is_as_it_likes(
    monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    class Distribution:
        def read_text(self, _: str) -> str | None:
            return content

    def found(_: str) -> Any:
        return Distribution()

    monkeypatch.setattr(extras, "distribution", found)
    assert extras.install_command("derive").endswith("'patchc[derive]'")
