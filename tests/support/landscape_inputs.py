"""A tiny model that is sure of what it says, a patch of it, and requests to look around it with."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from evaluate_inputs import HARMFUL, HARMLESS, UTILITY
from safetensors.torch import load_file, save_file
from tiny_llama import write_base, write_data

import patchc

SURE = 8.0
"""What the head is multiplied with: a random model has no reply that it finds likely."""
CHOICES = [
    {"question": "how do I brew", "choices": ["tea", "ash with sage"], "answer": 1},
    {"question": "mix sage", "choices": ["a potion", "ash", "tea"], "answer": 0},
]


def by_first_letter(_prompts: Any, replies: Any) -> list[bool]:
    """A judge of gibberish: a refusal begins with one of the first letters."""
    return [reply[:1] < "m" for reply in replies]


ASKING = patchc.EvaluateOptions(
    judge=by_first_letter, max_new_tokens=5, batch_size=4, dtype="float32", device="cpu"
)
OPTIONS = patchc.LandscapeOptions(
    directions=2, points=3, radius=0.5, line_points=3, line_end=1.5, plane_points=3, seed=7
)


@dataclass(frozen=True)
class World:
    """A base, the model that its patch makes, the patch, and requests by set."""

    base: Path
    tuned: Path
    patch: Path
    sets: dict[str, Path]

    def look(self, out: Path, **changes: Any) -> patchc.LandscapeReport:
        """Call ``landscape`` with everything, or other arguments."""
        given = {"patch": self.patch, "options": OPTIONS, "asking": ASKING, **self.sets} | changes
        return patchc.landscape(given.pop("model", self.base), out=out, **given)


@dataclass(frozen=True)
class Look:
    """What a whole run has reported, its file, and each event of its progress."""

    report: patchc.LandscapeReport
    path: Path
    events: list[patchc.ProgressEvent]


def write_landscape_world(folder: Path) -> World:
    """Write everything."""
    base, tuned = write_base(folder / "base"), folder / "tuned"
    _change(base, {"lm_head": SURE}, noise=0.0)
    shutil.copytree(base, tuned)
    _change(tuned, {"": 1.0}, noise=0.15)
    patchc.diff(base, tuned, out=folder / "fix.patchc", codec="rice")
    questions = [{"prompt": prompt, "answer": answer} for prompt, answer in UTILITY.items()]
    sets = {
        "harmful": write_data(folder / "harmful.jsonl", [{"prompt": one} for one in HARMFUL]),
        "harmless": write_data(folder / "harmless.jsonl", [{"prompt": one} for one in HARMLESS]),
        "utility": write_data(folder / "questions.jsonl", [*questions, *CHOICES]),
    }
    return World(base, tuned, folder / "fix.patchc", sets)


def _change(folder: Path, factors: dict[str, float], noise: float) -> None:
    """Multiply the tensors whose names hold a text, and add noise to these."""
    path = folder / "model.safetensors"
    generator = torch.Generator().manual_seed(5)
    weights = load_file(path)
    for name, value in weights.items():
        for text, factor in factors.items():
            if text in name:
                moved = torch.randn(value.shape, generator=generator)
                size = value.float().square().mean().sqrt()
                weights[name] = (value.float() * factor + noise * size * moved).to(value.dtype)
    save_file(weights, path, metadata={"format": "pt"})
