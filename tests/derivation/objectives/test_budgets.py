"""Whatever memory ``patchc.derive`` may take, it writes the same bytes; too little is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from objective_inputs import judge, options_of
from streaming import least_of, streaming
from tiny_checkpoints import tree

import patchc
from patchc.derivation.derive_options import Objective
from patchc.errors import UsageError
from patchc.verbs import derive_material
from patchc.verbs.derive import DeriveReport

CHANGES: dict[Objective, dict[str, Any]] = {
    "pair": {},
    "npo": {},
    "refusals": {"anchor_weight": 1.0},
    "margin": {"retain": 0.3},
}
ASKED = ("refusals", "margin")
"""Objectives for which the base is asked."""


@pytest.fixture(params=CHANGES)
def objective(request: pytest.FixtureRequest) -> Objective:
    found: Objective = request.param
    return found


def derive(
    base: Path, files: dict[str, Path], out: Path, objective: Objective, **more: Any
) -> DeriveReport:
    return patchc.derive(
        base,
        files["answered" if objective in ("pair", "npo") else "data"],
        out,
        harmless=files["harmless"] if objective == "margin" else None,
        anchor=files["anchor"] if objective in ASKED else None,
        options=options_of(objective, **CHANGES[objective]),
        judge=judge,
        **more,
    )


def test_the_least_memory_gives_the_same_bytes(
    base: Path,
    files: dict[str, Path],
    tmp_path: Path,
    objective: Objective,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = derive(base, files, tmp_path / "whole", objective)
    assert whole.plan
    assert not whole.plan.streams
    with streaming(), pytest.raises(UsageError) as refused:
        derive(base, files, tmp_path / "streamed", objective, max_memory=1)
    assert not (tmp_path / "streamed").exists()
    # The base is asked layer by layer too.
    monkeypatch.setattr(derive_material, "load_speaker", None)
    least = least_of(str(refused.value))
    with streaming():
        streamed = derive(base, files, tmp_path / "streamed", objective, max_memory=least)
    assert streamed.plan
    assert streamed.plan.streams
    assert streamed.plan.memory_bytes <= least
    assert tree(tmp_path / "streamed") == tree(tmp_path / "whole")
    assert not list(tmp_path.glob("*patchc-scratch*"))
