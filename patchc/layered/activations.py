"""How much memory a layer's gradients need, and how long a layer takes, measured on a real one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from patchc.layered.layered_model import LayeredModel

_SHORT, _LONG = 8, 40
"""Tokens of the two measurements that a line is drawn through."""


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs.

    Attributes:
        fixed_bytes: kept for its gradients, whatever the number of tokens.
        token_bytes: kept for each token.
        square_bytes: kept for each pair of tokens of one row; 0 where attention is fused.
    """

    fixed_bytes: int
    token_bytes: int
    square_bytes: int

    def kept_bytes(self, rows: int, columns: int) -> int:
        """Count what is kept for the gradients of rows of so many tokens."""
        tokens = rows * columns
        return self.fixed_bytes + self.token_bytes * tokens + self.square_bytes * tokens * columns


def measure_layer(model: LayeredModel) -> LayerCost:
    """Run the first layer on a few tokens, and count what it keeps for its gradients."""
    short, long = (_kept_bytes(model, 1, columns) for columns in (_SHORT, _LONG))
    slope = (long - short) / (_LONG - _SHORT)
    square = 0
    if model.config.get_text_config()._attn_implementation == "eager":
        heads = getattr(model.config.get_text_config(), "num_attention_heads", 1)
        # Two of the square matrices, of scores and of shares, are kept in fp32.
        square = 8 * heads
        slope -= square * (_LONG + _SHORT)
    return LayerCost(max(0, int(short - slope * _SHORT)), max(0, int(slope)), square)


def layer_seconds(model: LayeredModel, rows: int, columns: int) -> tuple[float, float]:
    """Measure how long the first layer takes forward, and forward and back, with its weights."""
    entry = model.enter(partial(_run, model, rows, columns))
    weights = model.weights.layer(0, None)
    states = entry.states.detach()
    seconds = []
    for learns in (False, False, True):
        start = time.perf_counter()
        with torch.set_grad_enabled(learns):
            leaves = {n: w.detach().requires_grad_(learns) for n, w in weights.items()}
            output = model.run_layer(0, leaves, states.detach().requires_grad_(learns), entry)
        if learns:
            torch.autograd.backward(output, torch.ones_like(output))
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        seconds.append(time.perf_counter() - start)
    return seconds[1], seconds[2]


def _kept_bytes(model: LayeredModel, rows: int, columns: int) -> int:
    entry = model.enter(partial(_run, model, rows, columns))
    weights = model.weights.layer(0, None)
    own = {weight.untyped_storage().data_ptr() for weight in weights.values()}
    kept: dict[int, int] = {}

    def note(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return saved

    leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    states = entry.states.detach().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        output = model.run_layer(0, leaves, states, entry)
    del output
    return sum(kept.values())


def _run(model: LayeredModel, rows: int, columns: int) -> None:
    tokens = torch.zeros(rows, columns, dtype=torch.int64, device=model.device)
    attended = torch.ones_like(tokens)
    # With padding, as in most batches, attention keeps more.
    attended[:, 0] = 0
    model(input_ids=tokens, attention_mask=attended, use_cache=False)
