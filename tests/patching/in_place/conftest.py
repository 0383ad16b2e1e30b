"""Fixtures of the tests beside."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from in_place_directions import Direction, journal_of
from tiny_checkpoints import PatchedModel

from patchc.checkpoint import InPlaceWriter
from patchc.patching import pending_groups


@pytest.fixture(params=["apply", "revert"])
def direction(request: pytest.FixtureRequest, patched: PatchedModel) -> Direction:
    """The two models are known to be on either side; ``source`` is the one that is changed."""
    sides = [patched.base, patched.tuned]
    source, target = sides if request.param == "apply" else sides[::-1]
    return Direction(request.param, patched.patch, source, target)


@pytest.fixture
def a_chunk_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run has as many groups as chunks."""
    monkeypatch.setattr(pending_groups, "GROUP_BYTES", 1)


class _CutOffError(Exception):
    """In place of a power loss."""


@pytest.fixture
def copies(direction: Direction, tmp_path: Path) -> dict[str, Path]:
    """Intact copies of both models."""
    models = {"source": direction.source, "target": direction.target}
    return {name: shutil.copytree(path, tmp_path / f"copy-{name}") for name, path in models.items()}


@pytest.fixture
def cut_off(direction: Direction, monkeypatch: pytest.MonkeyPatch) -> Direction:
    """The run has filled its journal and touched nothing yet."""
    with monkeypatch.context() as patching:
        patching.setattr(InPlaceWriter, "write_words", _cut_off)
        with pytest.raises(_CutOffError):
            direction.run()
    assert journal_of(direction.source).exists()
    return direction


def _cut_off(*_arguments: object) -> None:
    raise _CutOffError
