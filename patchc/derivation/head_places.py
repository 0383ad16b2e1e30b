"""Logits of some places of a batch; those of the others would take more memory than all else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patchc.layered.layered_model import LayeredModel
from patchc.layered.model_ends import Choose


def chosen_log_probabilities(model: Any, choose: Choose, ids: Tensor, **inputs: Any) -> Tensor:
    """Compute the log-probabilities of chosen tokens; fp32 [places, n].

    Args:
        model: a model of transformers, or one that runs layer by layer.
        choose: takes the places' states.
        ids: int64 [places, n], the tokens of each place.
        inputs: those of the model.
    """
    if isinstance(model, LayeredModel):
        return model.log_probabilities(choose, ids, use_cache=False, **inputs)
    return torch.log_softmax(chosen_logits(model, choose, **inputs), dim=-1).gather(-1, ids)


def chosen_logits(model: Any, choose: Choose, **inputs: Any) -> Tensor:
    """Compute the logits of chosen places; fp32, with the places as ``choose`` lays them out."""
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _head, states: (choose(states[0]),)
    )
    try:
        logits: Tensor = model(use_cache=False, **inputs).logits
    finally:
        hook.remove()
    return logits.float()
