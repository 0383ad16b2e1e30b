"""Fixtures of the tests beside."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from evaluate_inputs import HARMFUL, HARMLESS, UTILITY
from one_word_models import Spoken, write_chain
from tiny_llama import write_base, write_data
from transformers import AutoModelForCausalLM

import patchc


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="session")
def fix(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The patch to another model with the same tokenizer, and that model."""
    folder = tmp_path_factory.mktemp("fix")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1.5)
    write_base(folder / "tuned")
    model.save_pretrained(folder / "tuned")
    patchc.diff(base, folder / "tuned", out=folder / "fix.patchc")
    return folder / "fix.patchc", folder / "tuned"


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, Path]:
    pairs = [{"prompt": prompt, "answer": answer} for prompt, answer in UTILITY.items()]
    return {
        "harmful": write_data(tmp_path / "harmful.jsonl", [{"prompt": p} for p in HARMFUL]),
        "harmless": write_data(tmp_path / "harmless.jsonl", [{"prompt": p} for p in HARMLESS]),
        "utility": write_data(tmp_path / "utility.jsonl", pairs),
    }


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Spoken:
    """Models that say one word each, and the patches from each to the next."""
    return write_chain(tmp_path_factory.mktemp("spoken"))
