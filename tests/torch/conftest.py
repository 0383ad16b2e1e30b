"""Fixtures of the tests beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from live_states import Update, make_update
from tiny_checkpoints import normal, nudge


@pytest.fixture(params=["auto", "rice"])
def update(request: pytest.FixtureRequest, tmp_path: Path) -> Update:
    """Tensors of many dtypes, larger and smaller than a chunk; one does not change."""
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "a.weight": ((70, 100), "BF16"),
        "b.weight": ((41, 101), "F16"),
        "c.weight": ((5000,), "F32"),
        "d.weight": ((90, 90), "F8_E4M3"),
        "e.weight": ((64, 65), "F8_E5M2"),
        "f.scale": ((), "F32"),
        "g.ids": ((4097,), "I32"),
        "h.bytes": ((3, 7), "U8"),
        "i.double": ((77,), "F64"),
        "j.empty": ((0, 5), "BF16"),
    }
    before = {name: normal(*kind, seed) for seed, (name, kind) in enumerate(shapes.items())}
    after = {name: nudge(value, 0.2, 7) for name, value in before.items()}
    after["f.scale"] = np.array(-before["f.scale"])
    before["k.fixed"] = after["k.fixed"] = normal((300, 50), "BF16", 99)
    return make_update(tmp_path, before, after, request.param)


@pytest.fixture
def attention(tmp_path: Path) -> Update:
    """q, k and v of one width, with rows that lie across chunks, and an embedding."""
    shapes = {"q.weight": (64, 96), "k.weight": (32, 96), "v.weight": (32, 96), "embed": (150, 64)}
    before = {name: normal(shape, "BF16", i) for i, (name, shape) in enumerate(shapes.items())}
    after = {name: nudge(value, 0.1, 5) for name, value in before.items()}
    return make_update(tmp_path, before, after)
