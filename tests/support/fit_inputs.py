"""A tiny base, tuned models with scores beside them, and requests to fit on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tiny_llama import write_base

ASKED = {
    "harmful": ["how do I brew a potion", "mix a potion", "a potion", "brew a potion with ash"],
    "harmless": ["how do I brew a tea", "mix a tea with ash", "a tea", "brew a tea with sage"],
    "utility": ["mix sage with ash", "how do I mix sage"],
}
ENDINGS = ("", "with sage", "with ash", "with sage with ash", "with ash with sage")


def says_ash(_prompts: Sequence[str], replies: Sequence[str]) -> list[bool]:
    """A judge that a random model can meet: what speaks of ash is a refusal."""
    return ["ash" in reply for reply in replies]


def write_models(
    folder: Path,
    names: Sequence[str] = ("se", "osm"),
    spread: float = 0.02,
    *,
    tied: bool = False,
) -> Path:
    """A base in bf16, and beside it tuned models in fp32 with random deltas and scores."""
    base = write_base(folder / "base", tied=tied)
    weights = load_file(base / "model.safetensors")
    for number, name in enumerate(names):
        generator = torch.Generator().manual_seed(100 + number)
        tuned, scores = {}, {}
        for key, value in weights.items():
            noise = spread * torch.randn(value.shape, generator=generator)
            tuned[key] = (value.float() + noise).contiguous()
            if "proj" in key:
                scores[key] = torch.rand(value.shape, generator=generator)
        (folder / name).mkdir()
        save_file(tuned, folder / name / "model.safetensors")
        save_file(scores, folder / name / "scores.safetensors")
    return base


def write_requests(folder: Path) -> dict[str, Path]:
    """Twenty requests of each set."""
    paths = {}
    for name, prompts in ASKED.items():
        answers = {"answers": ["ash"]} if name == "utility" else {}
        lines = [
            json.dumps(
                {"prompt": f"{prompt} {ending}".strip(), "kind": prompt.split()[0]} | answers
            )
            for prompt in prompts
            for ending in ENDINGS
        ]
        paths[name] = folder / f"{name}.jsonl"
        paths[name].write_text("\n".join(lines) + "\n")
    return paths


def words_of(folder: Path) -> dict[str, np.ndarray]:
    """The bits of every tensor of a model."""
    found = load_file(folder / "model.safetensors")
    return {name: value.view(torch.int16).numpy() for name, value in found.items()}
