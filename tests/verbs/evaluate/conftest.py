"""Fixtures of the tests beside."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluate_inputs import HARMFUL, HARMLESS, UTILITY
from tiny_llama import write_base, write_data


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, Path]:
    pairs = [{"prompt": prompt, "answer": answer} for prompt, answer in UTILITY.items()]
    return {
        "harmful": write_data(tmp_path / "harmful.jsonl", [{"prompt": p} for p in HARMFUL]),
        "harmless": write_data(tmp_path / "harmless.jsonl", [{"prompt": p} for p in HARMLESS]),
        "utility": write_data(tmp_path / "utility.jsonl", pairs),
    }
