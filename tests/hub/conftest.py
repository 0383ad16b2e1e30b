"""A model, and a cache of the hub beside a working folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_checkpoints import normal, write_model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tensors = {f"layers.{n}.weight": normal((4, 8), "BF16", n) for n in range(2)}
    return write_model(tmp_path / "source", tensors, shards=2, side_files={"config.json": "{}"})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache, and a working folder beside it."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "cache"
