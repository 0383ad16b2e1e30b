"""Fixtures of the tests beside."""

from __future__ import annotations

import pytest
from landscape_inputs import Look, World, write_landscape_world

import patchc


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_landscape_world(tmp_path_factory.mktemp("landscape"))


@pytest.fixture(scope="session")
def look(world: World, tmp_path_factory: pytest.TempPathFactory) -> Look:
    path = tmp_path_factory.mktemp("look") / "landscape.jsonl"
    events: list[patchc.ProgressEvent] = []
    return Look(world.look(path, progress=events.append), path, events)
