"""Models whose layers cannot be run one at a time are refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from layered_models import CPU, gradients_of, held_model
from tiny_families import write_family
from tiny_llama import write_base
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.llama.modeling_llama import LlamaModel

from patchc.derivation.examples import Example, mean_loss, pad
from patchc.errors import UnsupportedInputError

EXAMPLES = [Example((6, 7, 8), (9, 10)), Example((11,), (7, 8, 9))]


def scaled(model: Any, states: Tensor, positions: Any) -> Tensor:
    for layer in model.layers:
        states = layer(states, position_embeddings=positions) * 2
    return states


def reversed_order(model: Any, states: Tensor, positions: Any) -> Tensor:
    for layer in reversed(model.layers):
        states = layer(states, position_embeddings=positions)
    return states


def with_the_embedding(model: Any, states: Tensor, positions: Any) -> Tensor:
    embedded = states
    for layer in model.layers:
        states = layer(states, position_embeddings=positions, embedded=embedded)
    return states


def but_the_last(model: Any, states: Tensor, positions: Any) -> Tensor:
    for layer in model.layers[:-1]:
        states = layer(states, position_embeddings=positions)
    return states


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (scaled, "LlamaForCausalLM does not pass its layers one after another"),
        (reversed_order, "LlamaForCausalLM does not pass its layers one after another"),
        (but_the_last, "LlamaForCausalLM does not pass its layers one after another"),
        (with_the_embedding, "LlamaForCausalLM share states that need gradients"),
    ],
)
def test_layers_that_cannot_run_singly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: Callable[..., Tensor], named: str
) -> None:
    def forward(self: Any, input_ids: Tensor, **_: Any) -> Any:
        states = self.embed_tokens(input_ids)
        places = torch.arange(input_ids.shape[1])[None]
        states = body(self, states, self.rotary_emb(states, places))
        return BaseModelOutputWithPast(last_hidden_state=self.norm(states))

    monkeypatch.setattr(LlamaModel, "forward", forward)
    model = held_model(write_base(tmp_path))
    with pytest.raises(UnsupportedInputError, match=named):
        gradients_of(model, [partial(mean_loss, model, pad(EXAMPLES, CPU))])


def test_an_error_before_the_layers_is_not_taken_for_one_of_them(tmp_path: Path) -> None:
    """GPT-2 has an embedding of 64 positions."""
    model = held_model(write_family(tmp_path, "gpt2"))
    longer = pad([Example((6,) * 60, (7,) * 20)], CPU)
    with pytest.raises(IndexError):
        gradients_of(model, [partial(mean_loss, model, longer)])
