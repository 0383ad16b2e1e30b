"""Fixtures of the tests beside."""

from __future__ import annotations

from pathlib import Path

import pytest
from additive_inputs import (
    Inputs,
    write_inputs,
)
from additive_runs import build


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return write_inputs(tmp_path / "inputs")


@pytest.fixture
def patch(tmp_path: Path, inputs: Inputs) -> Path:
    return build(inputs, tmp_path / "fix.patchc")
