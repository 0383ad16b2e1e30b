"""Greedy replies of a model whose layers are read from its files as they are computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from patchc.checkpoint import Checkpoint
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.generation import Speaker, dtype_of
from patchc.layered.from_folder import load_from
from patchc.layered.layered_model import LayeredModel
from patchc.layered.model_parts import load_parts
from patchc.layered.sources import BaseSource
from patchc.layered.weights import StreamedWeights


@contextmanager
def streamed_speaker(
    checkpoint: Checkpoint, tokenizer: Any, device: torch.device, options: EvaluateOptions
) -> Iterator[Speaker]:
    """Load a checkpoint as a speaker that holds two layers; the replies are those of all in memory.

    Every token reads the whole model once, for all requests that are asked together.

    Raises:
        UnsupportedInputError: transformers cannot load it, or its layers do not run one by one.
    """
    dtype = dtype_of(checkpoint, options)
    parts = load_parts(checkpoint, device, dtype)
    weights = StreamedWeights(parts, BaseSource(checkpoint), device, dtype, in_bf16=False)
    layered = LayeredModel(parts, weights, device, autocast=False)
    try:
        yield speaker_of(layered, checkpoint, tokenizer, options)
    finally:
        weights.close()


def speaker_of(
    layered: LayeredModel, checkpoint: Checkpoint, tokenizer: Any, options: EvaluateOptions
) -> Speaker:
    """Make a speaker of a model that runs layer by layer, for as long as this model is kept."""
    model = layered.parts.model
    folder = checkpoint.path
    if (folder / GENERATION_CONFIG_NAME).exists():
        what = "its settings for generation"
        model.generation_config = load_from(GenerationConfig, folder, what)
    return Speaker(checkpoint.path, model, tokenizer, options.max_new_tokens)
