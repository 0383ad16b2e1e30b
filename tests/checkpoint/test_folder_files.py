"""Pipes and sockets in a model's folder are refused where loaders would open them, only there."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from tiny_checkpoints import normal, write_model

from patchc import diff
from patchc.checkpoint import open_checkpoint
from patchc.errors import CheckpointError, MissingCheckpointError

WEIGHTS = {"w": normal((3, 5), "BF16", 1)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model(tmp_path / "model", WEIGHTS)
    return tmp_path / "model"


@pytest.mark.parametrize("name", ["a", "templates/a"])
@pytest.mark.parametrize("kind", ["pipe", "pipe by a link", "socket"])
def test_what_a_loader_would_wait_for(model: Path, name: str, kind: str) -> None:
    path = model / name
    path.parent.mkdir(exist_ok=True)
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as held:
            held.bind(str(path))
    else:
        made = path if kind == "pipe" else model.parent / "pipe"
        os.mkfifo(made)
        if made != path:
            path.symlink_to(made)
    with pytest.raises(CheckpointError, match=f"{path}: cannot read: it is a (pipe|socket)"):
        open_checkpoint(model)


@pytest.mark.parametrize("name", [".cache/a", "one/two/a"])
def test_what_no_loader_opens(model: Path, name: str) -> None:
    (model / name).parent.mkdir(parents=True)
    os.mkfifo(model / name)
    (model / "templates").mkdir()
    (model / "templates/a").symlink_to("nowhere")
    with open_checkpoint(model) as opened:
        assert list(opened.tensors) == ["w"]


def test_a_folder_that_is_no_model_is_told_as_such(tmp_path: Path) -> None:
    """And not by a socket that lies in it, as one does in many a home."""
    os.mkfifo(tmp_path / "a")
    with pytest.raises(MissingCheckpointError, match=r"no model\.safetensors and no model"):
        open_checkpoint(tmp_path)


def test_a_file_that_becomes_a_pipe_after_it_was_looked_at(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = model.parent / "other"
    write_model(other, WEIGHTS)
    (model / "a").write_text("x")
    (other / "a").write_text("x")
    is_file = Path.is_file

    def replaced(path: Path) -> bool:
        found = is_file(path)
        if path == other / "a" and found:
            path.unlink()
            os.mkfifo(path)
        return found

    monkeypatch.setattr(Path, "is_file", replaced)
    with pytest.raises(CheckpointError, match="a: cannot read: it is a pipe"):
        diff(model, other, out=model.parent / "x.patchc")


def test_folders_nested_without_end(model: Path) -> None:
    folder = model
    for level in range(64):
        (folder / "a").touch()
        if level == 62:
            with open_checkpoint(model) as opened:
                assert len(opened.side_files()[0]) == 63
        folder /= "d"
        folder.mkdir()
    with open_checkpoint(model) as opened, pytest.raises(CheckpointError, match="more than 64"):
        opened.side_files()
