"""Fixtures of the tests beside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from derive_commands import derive, write_inputs
from streaming import streaming


@pytest.fixture(scope="session")
def derivable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, data, and in "whole" what is derived in memory."""
    folder = write_inputs(tmp_path_factory.mktemp("derivable"))
    code, _, errors = derive(folder, folder / "whole")
    assert code == 0, errors
    return folder


@pytest.fixture
def streams() -> Iterator[None]:
    with streaming():
        yield
