"""Fits that take seconds, on the tiny models of fit_inputs.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from fit_inputs import says_ash
from transformers import AutoModelForCausalLM

import patchc
from patchc import EvaluateOptions, FitOptions, Recipe
from patchc.checkpoint import Checkpoint
from patchc.derivation.base_model import name_tensors
from patchc.fitting.live import LiveModel
from patchc.fitting.live_weights import LoadedWeights, Overlay
from patchc.layered.layered_model import LayeredModel
from patchc.layered.model_parts import load_parts
from patchc.layered.sources import BaseSource
from patchc.layered.weights import StreamedWeights
from patchc.selection.selected_entries import TensorEntries
from patchc.verbs.fit import FitReport

WAYS = HELD, STREAMED = "held", "streamed"
"""Where the model's weights are."""
ASKING = EvaluateOptions(judge=says_ash, max_new_tokens=5)
RECIPE = Recipe(retain=0.9, top_se=0.8, top_osm=0.8, alpha=1, beta=1, sets="union")
OPTIONS = FitOptions(steps=12, learning_rate=0.3, limits=(), best_effort=True)


def run(models: Path, requests: dict[str, Path], out: Path, **more: Any) -> FitReport:
    named = {
        "se": models / "se",
        "osm": models / "osm",
        "recipe": RECIPE,
        "options": OPTIONS,
        "asking": ASKING,
        **requests,
        **more,
    }
    report = patchc.fit(models / "base", out=out, **named)
    assert type(report) is FitReport
    return report


@contextmanager
def open_live(
    base: Checkpoint, dtype: torch.dtype, entries: Mapping[str, TensorEntries], way: str
) -> Iterator[LiveModel]:
    """A base on which scales are tried, in memory or read layer by layer."""
    device = torch.device("cpu")
    parts = load_parts(base, device, dtype)
    if way == HELD:
        model = AutoModelForCausalLM.from_pretrained(base.path, dtype=dtype)
        loaded = LoadedWeights(parts, name_tensors(model, base))
        yield LiveModel(LayeredModel(parts, loaded, device, autocast=False), loaded, entries)
        return
    overlay = Overlay(BaseSource(base))
    weights = StreamedWeights(parts, overlay, device, dtype, in_bf16=False)
    try:
        yield LiveModel(LayeredModel(parts, weights, device, autocast=False), overlay, entries)
    finally:
        weights.close()
