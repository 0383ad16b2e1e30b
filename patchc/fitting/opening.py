"""Opens the base for a fit: as a loaded model that also runs layer by layer, or only so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch

from patchc.checkpoint import Checkpoint
from patchc.derivation.base_model import name_tensors
from patchc.derivation.budget import Budget, process_memory
from patchc.evaluation.generation import Speaker, dtype_of, load_speaker
from patchc.evaluation.measure import Setup
from patchc.evaluation.streamed_speaker import speaker_of
from patchc.fitting.live_weights import LoadedWeights, Overlay, Settable
from patchc.fitting.loads import FitLoads
from patchc.fitting.memory import Room, Work, choose
from patchc.layered.activations import measure_layer
from patchc.layered.allocation import lean_allocation
from patchc.layered.layered_model import LayeredModel
from patchc.layered.model_parts import load_parts
from patchc.layered.sources import BaseSource
from patchc.layered.weights import StreamedWeights
from patchc.selection.selected_entries import TensorEntries


@dataclass(frozen=True)
class OpenBase:
    """The base, ready to be asked and fitted.

    Attributes:
        speaker: asks it.
        model: runs it layer by layer, with the same weights.
        settable: takes the words of entries.
        room: what the losses of a step may keep.
    """

    speaker: Speaker
    model: LayeredModel
    settable: Settable
    room: Room


@contextmanager
def open_base(
    base: Checkpoint,
    setup: Setup,
    device: torch.device,
    loads: FitLoads,
    entries: Mapping[str, TensorEntries],
    budget: Budget,
) -> Iterator[OpenBase]:
    """Open a base for a fit, in memory if it fits there, and else so that its layers are read.

    Args:
        base: the open checkpoint.
        setup: what it is asked.
        device: where it computes.
        loads: how much text passes it at once.
        entries: those that the recipe selects, or of a search the most.
        budget: the memory that may be taken.

    Raises:
        UnsupportedInputError: transformers cannot load it, its layers do not run one by one, or its
            parameters are not those that the base stores.
        UsageError: the budget is too small.
    """
    tokenizer, options = setup.prompts.tokenizer, setup.options
    dtype = dtype_of(base, options)
    model, work = _measure(base, device, dtype, loads, entries)
    room = choose(work, budget.memory, budget.device)
    parts, overlay = model.parts, Overlay(BaseSource(base))
    weights = StreamedWeights(
        parts, overlay, device, dtype, in_bf16=False, holds_head=room.way.holds_head
    )
    with closing(weights):
        model.weights = weights
        if room.way.streams:
            # Not in inference mode, in which replies are spoken: its tensors could not learn.
            weights.layer(0, None)
            speaker = speaker_of(model, base, tokenizer, options)
            with lean_allocation():
                yield OpenBase(speaker, model, overlay, room)
            return
    speaker = load_speaker(base, tokenizer, device, options)
    loaded = LoadedWeights(parts, name_tensors(speaker.model, base))
    model.weights = loaded
    yield OpenBase(speaker, model, loaded, room)


def _measure(
    base: Checkpoint,
    device: torch.device,
    dtype: torch.dtype,
    loads: FitLoads,
    entries: Mapping[str, TensorEntries],
) -> tuple[LayeredModel, Work]:
    """Build the model without weights, and find what fitting it takes."""
    parts = load_parts(base, device, dtype)
    process_bytes = process_memory()
    weights = StreamedWeights(parts, BaseSource(base), device, dtype, in_bf16=False, ahead=False)
    with closing(weights):
        model = LayeredModel(parts, weights, device, autocast=False)
        return model, Work(
            parts=parts,
            dtype=dtype,
            on_device=device.type == "cuda",
            cost=measure_layer(model),
            loads=loads,
            word_bytes=sum(each.found.base.nbytes for each in entries.values()),
            most_words=max(each.tensor.words for each in entries.values()),
            most_entries=max(len(each.found.base) for each in entries.values()),
            process_bytes=process_bytes,
        )
