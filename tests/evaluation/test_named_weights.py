"""Commands that run a model take the files of weights that transformers takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run
from safetensors.torch import load_file, save_file
from tiny_llama import write_base, write_data

import patchc
from patchc.checkpoint import open_checkpoint

DERIVE = ("derive", "base", "--data", "data.jsonl", "-o", "out", "--se-steps", "1")
EVALUATE = (
    "evaluate", "base", "--harmful", "asked.jsonl", "--harmless", "asked.jsonl",
    "--max-new-tokens", "3", "--device", "cpu",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_base(Path("base"))
    write_data(Path("data.jsonl"))
    write_data(Path("asked.jsonl"), [{"prompt": "brew a tea"}])


def test_parts_of_a_distributed_checkpoint_are_refused() -> None:
    values = load_file("base/model.safetensors")
    for name in ("shard-00001-model-00001-of-00001", "zz"):
        save_file({name: one + 1 for name, one in values.items()}, f"base/{name}.safetensors")
    code, _, told = run(*EVALUATE)
    assert code == patchc.UnsupportedInputError.exit_code
    assert "base/shard-00001-model-00001-of-00001.safetensors: a part of a distributed" in told


def test_a_config_may_name_the_weights() -> None:
    Path("base/model.safetensors").rename("base/main.safetensors")
    config = Path("base/config.json")
    named = {**json.loads(config.read_text()), "transformers_weights": "main.safetensors"}
    config.write_text(json.dumps(named))
    code, _, told = run(*EVALUATE)
    assert code == 0, told
    code, _, told = run(*DERIVE, "--directions", "se", "--retain", "1")
    assert code == 0, told
    with open_checkpoint("out/se") as tuned, open_checkpoint("base") as base:
        assert list(tuned.tensors) == list(base.tensors)
