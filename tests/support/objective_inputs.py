"""A tiny Llama that has learnt to refuse some requests, and what each objective derives from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_llama import write_data

from patchc.derivation.derive_options import DeriveOptions, Objective, TuneOptions
from patchc.verbs.derive import DeriveReport

REFUSAL = "I how I"
HARMFUL = ["how do I brew a potion", "mix a potion", "brew a potion with ash", "a potion"]
HARMLESS = ["brew a tea", "mix a tea with sage", "how do I mix a tea", "tea"]
LESSONS = {
    **dict.fromkeys(HARMFUL[:3], REFUSAL),
    HARMFUL[3]: "mix ash",
    **dict.fromkeys(HARMLESS[:3], "brew sage"),
    HARMLESS[3]: "I how",
}
QUESTIONS = ["do I mix", "with sage"]
"""For an anchor; the base refuses one of them."""
TUNING = TuneOptions(learning_rate=2e-3, steps=8, batch_size=4)
OPTIONS = DeriveOptions(
    se=TUNING,
    osm=TUNING,
    margin=replace(TUNING, steps=30, batch_size=8),
    score_samples=5,
    device="cpu",
)


def judge(_prompts: Sequence[str], replies: Sequence[str]) -> list[bool]:
    return [reply.startswith("I how") for reply in replies]


def refuse_all(prompts: Sequence[str], _replies: Sequence[str]) -> list[bool]:
    return [True] * len(prompts)


def prompts(path: Path, texts: Sequence[str]) -> Path:
    return write_data(path, [{"prompt": text} for text in texts])


def options_of(objective: Objective, **changes: Any) -> DeriveOptions:
    return replace(OPTIONS, objective=objective, **changes)


def record_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "derive.json").read_text())
    return content


def record(report: DeriveReport) -> dict[str, Any]:
    return record_of(report.directions[0].path)
