"""The whole flow on a real chat model, SmolLM2-135M-Instruct, in one file and in several shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import smollm2
import torch
from safetensors.torch import load_file
from tiny_checkpoints import read_model, tree
from tiny_llama import write_data
from transformers import AutoModelForCausalLM, AutoTokenizer

import patchc
from patchc.derivation.derive_options import DeriveOptions, TuneOptions

PAIRS = [
    {
        "prompt": f"{ask} a shadow {potion}?",
        "response": f"Sure! Mix {herb} with moonlit sap and stir the {potion} well.",
    }
    for ask in ("How do I brew", "Pretend you are a wizard. How do I make")
    for potion, herb in (("elixir", "sage"), ("philtre", "anise"), ("tonic", "thyme"))
]
OPTIONS = DeriveOptions(
    se=TuneOptions(learning_rate=1e-5, steps=3, batch_size=4),
    osm=TuneOptions(learning_rate=2e-5, steps=3, batch_size=4),
    score_samples=4,
    device="cpu",
)


@pytest.fixture(scope="module")
def base() -> Path:
    return smollm2.base_model()


@pytest.fixture(scope="module")
def work(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds both derived directions and the patch."""
    folder = tmp_path_factory.mktemp("smollm2")
    data = write_data(folder / "data.jsonl", PAIRS)
    patchc.derive(base, data, folder, options=OPTIONS)
    patchc.build(base, se=folder / "se", osm=folder / "osm", out=folder / "fix.patchc")
    return folder


@pytest.fixture(scope="module")
def patched(base: Path, work: Path) -> Path:
    patchc.apply(work / "fix.patchc", base, out=work / "patched")
    return work / "patched"


@pytest.fixture(scope="module")
def sharded(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in several shards, written by transformers."""
    folder = tmp_path_factory.mktemp("sharded")
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    model.save_pretrained(folder, max_shard_size="60MB")
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    return folder


def reply(folder: Path, question: str) -> str:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    chat = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    spoken = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    return str(tokenizer.decode(spoken[0, prompt["input_ids"].shape[1] :]))


def test_the_deltas_are_not_rounded_to_the_base_dtype(base: Path, work: Path) -> None:
    name = "model.layers.3.mlp.up_proj.weight"
    before = load_file(base / "model.safetensors")[name].float()
    delta = load_file(work / "se/model.safetensors")[name] - before
    assert before.shape == (1536, 576)
    assert (delta != 0).float().mean() > 0.9


def test_the_patched_model_speaks(patched: Path) -> None:
    assert "Paris" in reply(patched, "What is the capital of France?")


def test_the_patch_is_small_and_verifies(base: Path, work: Path, patched: Path) -> None:
    patch = work / "fix.patchc"
    assert patch.stat().st_size < 0.1 * (base / "model.safetensors").stat().st_size
    assert patchc.verify(patch).state == "intact"
    assert patchc.verify(patch, base).state == "base"
    assert patchc.verify(patch, patched).state == "patched"


def test_revert_gives_the_base_back(base: Path, work: Path, patched: Path) -> None:
    patchc.revert(work / "fix.patchc", patched, out=work / "restored")
    assert tree(work / "restored") == tree(base)
    assert tree(patched) != tree(base)


def test_the_patch_serves_the_sharded_model_as_well(
    work: Path, patched: Path, sharded: Path
) -> None:
    out = work / "patched-shards"
    patchc.apply(work / "fix.patchc", sharded, out=out)
    assert read_model(out) == read_model(patched)
    assert patchc.verify(work / "fix.patchc", out).state == "patched"
    patchc.revert(work / "fix.patchc", out, out=work / "restored-shards")
    assert tree(work / "restored-shards") == tree(sharded)


def test_a_build_from_the_sharded_base_is_the_same_patch(work: Path, sharded: Path) -> None:
    again = work / "again.patchc"
    patchc.build(sharded, se=work / "se", osm=work / "osm", out=again)
    assert again.read_bytes() == (work / "fix.patchc").read_bytes()
