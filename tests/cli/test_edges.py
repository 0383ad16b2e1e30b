"""What users and machines do to inputs and to memory: one message and its code, no traceback."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from ordinary_user import ordinary_user
from tiny_checkpoints import PatchedModel

import patchc
from patchc.errors import (
    CheckpointError,
    EvaluateError,
    PatchcError,
    PatchFormatError,
    StorageError,
    UsageError,
)

SHARD = "model-00001-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def fails(error: type[PatchcError], message: str, *arguments: object) -> None:
    """A command prints one message and ends with an error's code."""
    code, out, err = run(*arguments)
    assert message in err
    assert err.startswith("patchc: error: ")
    assert (code, out, err.count("\n")) == (error.exit_code, "", 1)


def put(kind: str, path: Path) -> None:
    """Put something that is no file, or cannot be reached, under a name."""
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(os.path.relpath(path))
    elif kind == "in a circle":
        path.symlink_to(path)


NO_FILES = ("a folder", "a pipe", "a device", "a socket", "in a circle")


@pytest.fixture
def work(patched: PatchedModel, monkeypatch: pytest.MonkeyPatch) -> PatchedModel:
    """The working folder is that of the models, so that names of sockets are short enough."""
    monkeypatch.chdir(patched.patch.parent)
    return patched


@pytest.mark.parametrize("kind", NO_FILES)
def test_no_file_in_place_of_a_patch(work: PatchedModel, kind: str) -> None:
    put(kind, Path("x"))
    fails(PatchFormatError, kind, "inspect", "x")
    fails(PatchFormatError, kind, "verify", "x", work.base)
    fails(PatchFormatError, kind, "apply", "x", work.base, "-o", "out")
    fails(PatchFormatError, kind, "fold", work.patch, "x", "-o", "out")


@pytest.mark.parametrize("kind", NO_FILES[1:])
def test_no_file_in_place_of_a_model(work: PatchedModel, kind: str) -> None:
    put(kind, Path("x"))
    fails(CheckpointError, kind, "verify", work.patch, "x")
    fails(CheckpointError, kind, "diff", "x", work.tuned, "-o", "out")


@pytest.mark.parametrize("name", [SHARD, INDEX])
@pytest.mark.parametrize("kind", NO_FILES)
def test_no_file_in_a_model(work: PatchedModel, kind: str, name: str) -> None:
    (work.base / name).unlink()
    put(kind, work.base / name)
    fails(CheckpointError, f"{name}: cannot read", "verify", work.patch, work.base)
    fails(CheckpointError, kind, "apply", work.patch, work.base, "-o", "out")


@pytest.mark.parametrize("kind", NO_FILES)
def test_no_file_in_place_of_a_recipe_or_requests(work: PatchedModel, kind: str) -> None:
    put(kind, Path("x"))
    build = ("build", work.base, "--tuned", work.tuned, "-o", "out")
    fails(UsageError, kind, *build, "--recipe", "x")
    fails(EvaluateError, kind, "evaluate", "--harmful", "x", "--harmless", "x", work.base)


@pytest.mark.parametrize(
    ("path", "message"),
    [("x" * 256, "too long"), ("/".join(["x" * 200] * 30), "too long"), ("file/x", "not a folder")],
)
def test_names_that_no_file_can_have(work: PatchedModel, path: str, message: str) -> None:
    Path("file").touch()
    fails(PatchFormatError, message, "inspect", path)
    fails(CheckpointError, message, "verify", work.patch, path)
    fails(UsageError, message, "build", work.base, "--recipe", path, "-o", "out")
    fails(EvaluateError, message, "evaluate", work.base, "--harmful", path, "--harmless", path)


@pytest.mark.parametrize(
    "command",
    [
        ("keygen",),
        ("fit", "b", "--se", "s", "--osm", "o", "--harmful", "h", "--harmless", "l", "-o"),
    ],
)
def test_an_output_without_a_name(command: tuple[str, ...]) -> None:
    for path in (".", "/"):
        code, _, err = run(*command, path)
        assert code == patchc.errors.OutputError.exit_code
        assert "is a folder; name a file that does not exist" in err


def test_a_working_folder_that_is_gone(work: PatchedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = work.patch.parent / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    message = "the working folder no longer exists; change to another"
    fails(PatchFormatError, message, "inspect", "x.patchc")
    fails(CheckpointError, message, "verify", work.patch, "model")
    code, _, err = run("apply", work.patch, work.base, "-o", "out")
    assert code == StorageError.exit_code
    assert message in err
    assert run("verify", work.patch, work.base)[0] == 0


DENIED = "Permission denied; change the permissions"


@pytest.fixture
def shared(work: PatchedModel) -> Iterator[PatchedModel]:
    """Models that other users can reach, and commands that have imported what they need."""
    assert run("verify", work.patch, work.base)[0] == 0
    assert run("diff", work.base, work.tuned, "-o", "again.patchc")[0] == 0
    assert run("build", work.base, "--tuned", work.tuned, "--recipe", "x", "-o", "y")[0] == 2
    assert run("evaluate", work.base, "--harmful", "x", "--harmless", "x")[0] == 18
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        for model in (work.base, work.tuned):
            shutil.copytree(model, folder / model.name)
        patch = shutil.copy(work.patch, folder)
        yield replace(work, base=folder / "base", tuned=folder / "tuned", patch=Path(patch))


def test_files_without_permission(shared: PatchedModel) -> None:
    patch, base = shared.patch, shared.base
    (base / SHARD).chmod(0)
    with ordinary_user():
        fails(CheckpointError, f"{SHARD}: cannot read: {DENIED}", "verify", patch, base)
    (base / INDEX).chmod(0)
    patch.chmod(0)
    with ordinary_user():
        fails(CheckpointError, f"{INDEX}: cannot read: {DENIED}", "diff", base, base, "-o", "x")
        fails(PatchFormatError, DENIED, "inspect", patch)
        fails(UsageError, DENIED, "build", base, "--recipe", patch, "-o", "x")
        asked = ("--harmful", patch, "--harmless", patch)
        fails(EvaluateError, DENIED, "evaluate", shared.tuned, *asked)


@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_folder_that_cannot_be_entered(shared: PatchedModel, mode: int) -> None:
    patch, base = shared.patch, shared.base
    base.chmod(mode)
    with ordinary_user():
        fails(CheckpointError, DENIED, "verify", patch, base)
        fails(CheckpointError, DENIED, "verify", patch, base / SHARD)
        fails(CheckpointError, DENIED, "verify", patch, base / "below")
    base.chmod(0o755)


def test_a_folder_that_cannot_be_listed(shared: PatchedModel) -> None:
    """transformers does not load it either: what is in it tells which files are the model."""
    shared.base.chmod(0o111)
    out = shared.base.parent / "out"
    with ordinary_user():
        fails(CheckpointError, "cannot list", "verify", shared.patch, shared.base)
        fails(CheckpointError, "cannot list", "diff", shared.base, shared.tuned, "-o", out)
    shared.base.chmod(0o755)


def raises(error: BaseException) -> Callable[..., Any]:
    def verb(*_: object, **__: object) -> None:
        raise error

    return verb


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EIO, "?", "a/file"), "cannot read or write a/file: Input/output error"),
        (OSError(errno.ESTALE, "?"), "cannot read or write files: the network file system lost"),
        (OSError("strange"), "strange"),
        (MemoryError("Unable to allocate 9 TiB"), "no more memory"),
        (MemoryError(), "or lower --max-memory or --threads\n"),
        (ImportError("x.so: no space to map it", path="/x.so"), "cannot load x.so: no space"),
    ],
)
def test_errors_of_the_system_wherever_they_come_from(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, message: str
) -> None:
    monkeypatch.setattr(patchc, "verify", raises(error))
    fails(StorageError, message, "verify", "x")


@pytest.mark.parametrize("error", [KeyError("bug"), ImportError("bug", path="/x.py")])
def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(patchc, "verify", raises(error))
    with pytest.raises(type(error), match="bug"):
        run("verify", "x")


def test_a_system_without_threads(work: PatchedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", raises(RuntimeError("can't start new thread")))
    fails(StorageError, "starts no more threads", "verify", work.patch, work.base)


def test_a_system_without_files_to_open(work: PatchedModel) -> None:
    """Each number of files that a process may have open, from none to enough."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(list(Path("/dev/fd").iterdir()))
    codes = []
    for free in range(12):
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened + free, before[1]))
        try:
            code, _, err = run("verify", work.patch, work.base, "--threads", 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        codes.append(code)
        assert code == 0 or "Too many open files; raise the limit" in err
    assert codes[0] in (3, 5, 12)
    assert codes[-1] == 0
