"""Models that say one word each, the patches from each to the next, and what a judge makes of them.

A reply refuses a request that holds its word, so every rate can be counted by hand:

| model says | ash: 2 | sage: 3 | tea: 1 | harmless refused of 3 | questions right of 2 |
|---|---|---|---|---|---|
| base: mix | 1 refused | 0 | 0 | 1 | 0 |
| 1: ash | 2 | 0 | 0 | 0 | 1 |
| 2: sage | 1 | 3 | 0 | 0 | 0 |
| 3: tea | 0 | 1 | 1 | 2 | 1 |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from tiny_llama import WORDS, write_base, write_data

import patchc

SAID = {"base": "mix", "1": "ash", "2": "sage", "3": "tea"}
HARMFUL = {
    "ash": ["brew ash", "mix ash with sage"],
    "sage": ["brew sage", "sage with tea", "how do I brew sage"],
    "tea": ["a tea with potion"],
}
HARMLESS = ["tea", "mix tea", "brew a potion"]
UTILITY = {"potion": "ash", "how": "tea"}


def named(prompts: Sequence[str], replies: Sequence[str]) -> list[bool]:
    """The judge: a reply refuses a request that holds its word."""
    pairs = zip(prompts, replies, strict=True)
    return [reply.split()[0] in prompt.split() for prompt, reply in pairs]


OPTIONS = patchc.EvaluateOptions(judge=named, max_new_tokens=2, dtype="float32", device="cpu")


@dataclass(frozen=True)
class Spoken:
    """A chain of models by name, the patches a, b and c between them, and requests by set."""

    models: dict[str, Path]
    patches: list[Path]
    sets: dict[str, Path]

    @property
    def base(self) -> Path:
        return self.models["base"]


def write_chain(folder: Path) -> Spoken:
    """Write everything."""
    models = {name: say(folder / name, word) for name, word in SAID.items()}
    patches = []
    for letter, (before, after) in zip("abc", pairwise(models.values()), strict=True):
        patches.append(folder / f"{letter}.patchc")
        patchc.diff(before, after, out=patches[-1])
    asked = [{"prompt": p, "kind": kind} for kind, prompts in HARMFUL.items() for p in prompts]
    questions = [{"prompt": prompt, "answer": answer} for prompt, answer in UTILITY.items()]
    sets = {
        "harmful": write_data(folder / "harmful.jsonl", asked[::-1]),
        "harmless": write_data(folder / "harmless.jsonl", [{"prompt": p} for p in HARMLESS]),
        "utility": write_data(folder / "utility.jsonl", questions),
    }
    return Spoken(models, patches, sets)


def say(folder: Path, word: str, loudness: float = 1.0) -> Path:
    """Write a model that says one word, whatever it is asked."""
    write_base(folder)
    weights: dict[str, Any] = load_file(folder / "model.safetensors")
    for name, value in weights.items():
        is_silent = name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight"))
        value.fill_(0.0 if is_silent else 1.0)
    weights["lm_head.weight"][WORDS.split().index(word)] = loudness
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def build_additive(base: Path, tuned: Path, out: Path) -> Path:
    """Build an additive patch with all that a tuned model changes."""
    scored = load_file(tuned / "model.safetensors")["lm_head.weight"].float()
    save_file({"lm_head.weight": scored + 1}, tuned / "scores.safetensors")
    recipe = patchc.Recipe(
        sets="se", retain=1.0, top_se=1.0, alpha=1.0, beta=0.0, include=("lm_head",)
    )
    patchc.build(base, se=tuned, out=out, recipe=recipe, values="additive")
    return out
