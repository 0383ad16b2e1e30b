"""Models whose layers cannot be run one at a time are refused."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from layered_models import CPU, gradients_of, held_model
from safetensors.torch import load_file, save_file
from tiny_families import write_family
from tiny_llama import write_base
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel

from patchc.checkpoint import open_checkpoint
from patchc.derivation.examples import Example, mean_loss, pad
from patchc.errors import UnsupportedInputError
from patchc.layered.stated_sizes import check_sizes

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


def twice(model: Any, states: Tensor, positions: Any) -> Tensor:
    for layer in [*model.layers, *model.layers]:
        states = layer(states, position_embeddings=positions)
    return states


def left_for_later_layers(model: Any, states: Tensor, positions: Any) -> Tensor:
    shared: UserDict[str, Tensor] = UserDict()
    for layer in model.layers:
        states = layer(states, position_embeddings=positions, shared=shared)
    return states


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (twice, "LlamaForCausalLM does not pass its layers one after another"),
        (left_for_later_layers, "LlamaForCausalLM share states that need gradients"),
        (scaled, "LlamaForCausalLM does not pass its layers one after another"),
        (reversed_order, "LlamaForCausalLM does not pass its layers one after another"),
        (but_the_last, "LlamaForCausalLM does not pass its layers one after another"),
        (with_the_embedding, "LlamaForCausalLM share states that need gradients"),
    ],
)
def test_layers_that_cannot_run_singly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: Callable[..., Tensor], named: str
) -> None:
    patch_llama(monkeypatch, body)
    model = held_model(write_base(tmp_path))
    with pytest.raises(UnsupportedInputError, match=named):
        gradients_of(model, [partial(mean_loss, model, pad(EXAMPLES, CPU))])


def test_states_between_layers_that_go_elsewhere_without_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_twice_the_states(model: Any, states: Tensor, positions: Any) -> Tensor:
        for layer in model.layers:
            states = layer(states, position_embeddings=positions, shared=states * 2)
        return states

    patch_llama(monkeypatch, with_twice_the_states)
    model = held_model(write_base(tmp_path))
    with pytest.raises(UnsupportedInputError, match="share states"), torch.no_grad():
        model.enter(partial(mean_loss, model, pad(EXAMPLES, CPU)))


def test_an_embedding_that_is_used_behind_the_layers_gives_no_wrong_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def and_the_embedding(model: Any, states: Tensor, positions: Any) -> Tensor:
        embedded = states
        for layer in model.layers:
            states = layer(states, position_embeddings=positions)
        return states + embedded

    patch_llama(monkeypatch, and_the_embedding)
    model = held_model(write_base(tmp_path))
    loss = partial(mean_loss, model, pad(EXAMPLES, CPU))
    assert model.leave(loss, torch.zeros_like(model.enter(loss).states)).isnan()


def patch_llama(monkeypatch: pytest.MonkeyPatch, body: Callable[..., Tensor]) -> None:
    """Let Llama pass its layers otherwise; a layer with ``shared`` leaves something there."""

    def forward(self: Any, input_ids: Tensor, **_: Any) -> Any:
        states = self.embed_tokens(input_ids)
        places = torch.arange(input_ids.shape[1])[None]
        states = body(self, states, self.rotary_emb(states, places))
        return BaseModelOutputWithPast(last_hidden_state=self.norm(states))

    run = LlamaDecoderLayer.forward

    def leave(self: Any, states: Tensor, *, shared: Any = None, **others: Any) -> Tensor:
        if isinstance(shared, UserDict):
            shared["states"] = states
        output: Tensor = run(self, states, **others)
        return output

    monkeypatch.setattr(LlamaModel, "forward", forward)
    monkeypatch.setattr(LlamaDecoderLayer, "forward", leave)


def test_layers_that_share_a_parameter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, build = write_family(tmp_path, "llama"), LlamaModel.__init__
    stored = load_file(base / "model.safetensors")
    first, second = "model.layers.0.mlp", "model.layers.1.mlp"
    shared = {
        name.replace(first, second): one.clone() for name, one in stored.items() if first in name
    }
    save_file(stored | shared, base / "model.safetensors")

    def init(self: Any, *args: Any, **others: Any) -> None:
        build(self, *args, **others)
        self.layers[1].mlp = self.layers[0].mlp

    monkeypatch.setattr(LlamaModel, "__init__", init)
    with pytest.raises(
        UnsupportedInputError, match=r"1\.mlp\.\w+\.weight' of a layer is also that"
    ):
        held_model(base)


def test_an_error_before_the_layers_is_not_taken_for_one_of_them(tmp_path: Path) -> None:
    """GPT-2 has an embedding of 64 positions."""
    model = held_model(write_family(tmp_path, "gpt2"))
    longer = pad([Example((6,) * 60, (7,) * 20)], CPU)
    with pytest.raises(IndexError):
        gradients_of(model, [partial(mean_loss, model, longer)])


def test_the_experts_of_a_layer_may_be_one_tensor(tmp_path: Path) -> None:
    experts = {"model.layers.0.mlp.experts.down_proj": torch.zeros(50_000, 1, 1)}
    save_file(experts, tmp_path / "model.safetensors")
    many = {"num_hidden_layers": 60, "num_experts": 512}
    with open_checkpoint(tmp_path) as checkpoint:
        check_sizes(tmp_path / "config.json", many, checkpoint)
        with pytest.raises(UnsupportedInputError, match="layers times experts is 60,000"):
            check_sizes(tmp_path / "config.json", {**many, "num_experts": 1000}, checkpoint)
