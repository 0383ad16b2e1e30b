"""What the pages' blocks run on: the files that they name, and a ``patchc`` that starts at once."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_server import command_server
from page_world import write_world


@pytest.fixture(scope="session")
def shared_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of a run of the tests share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if hasattr(request.config, "workerinput") else base


@pytest.fixture(scope="session")
def world(shared_folder: Path) -> Path:
    """The files; the first worker to ask makes them."""
    folder = shared_folder / "page-world"
    with (shared_folder / "page-world.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            making = shared_folder / "page-world.new"
            write_world(making)
            making.rename(folder)
    return folder


@pytest.fixture(scope="session")
def programs(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the program ``patchc``."""
    locks = shared_folder / "compile-locks"
    with command_server(
        tmp_path_factory.mktemp("server"), locks if locks.exists() else None
    ) as folder:
        yield folder


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
