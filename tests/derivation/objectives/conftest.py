"""Fixtures of the tests beside."""

from __future__ import annotations

from pathlib import Path

import pytest
from objective_inputs import (
    HARMFUL,
    HARMLESS,
    LESSONS,
    QUESTIONS,
    prompts,
)
from tiny_llama import write_base, write_data

import patchc
from patchc.derivation.derive_options import DeriveOptions, TuneOptions


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that refuses three potions and one tea, and answers the others."""
    folder = tmp_path_factory.mktemp("taught")
    pairs = [{"prompt": prompt, "response": reply} for prompt, reply in LESSONS.items()]
    lessons = write_data(folder / "lessons.jsonl", pairs)
    options = DeriveOptions(
        objective="answers",
        osm=TuneOptions(learning_rate=1e-2, steps=120, batch_size=8),
        device="cpu",
    )
    report = patchc.derive(
        write_base(folder / "random"), None, folder, harmless=lessons, options=options
    )
    return report.directions[0].path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    answered = [{"prompt": prompt, "response": "mix ash with sage"} for prompt in HARMFUL]
    return {
        "answered": write_data(tmp_path / "answered.jsonl", answered),
        "data": prompts(tmp_path / "harmful.jsonl", HARMFUL),
        "harmless": prompts(tmp_path / "harmless.jsonl", HARMLESS),
        "anchor": prompts(tmp_path / "questions.jsonl", QUESTIONS),
    }
