"""The names of a module's parameters inside wrappers of torch and of PEFT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from live_states import bits, make_update, state_of
from tiny_checkpoints import normal, nudge
from torch import nn

import patchc.torch as live
from patchc.errors import UnsupportedInputError
from patchc.torch import Slice


def test_a_plain_module_in_a_wrapper_has_its_own_names() -> None:
    plain = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    assert live.mapping_for(plain) == {}
    names = ["0.weight", "0.bias", "1.weight", "1.bias"]
    names += ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert live.mapping_for(torch.nn.DataParallel(plain)) == {
        f"module.{name}": [Slice(name)] for name in names
    }


def test_buffers_that_the_base_does_not_have_are_left_alone(tmp_path: Path) -> None:
    before = {"0.weight": normal((4, 3), "F32", 1), "1.weight": normal((4,), "F32", 2)}
    after = {name: nudge(value, 0.5, 3) for name, value in before.items()}
    update = make_update(tmp_path, before, after)
    plain = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4))
    plain[1].bias = None
    plain.load_state_dict(state_of(before), strict=False)
    wrapped = nn.DataParallel(plain)
    live.apply_(wrapped, update.patch, mapping=live.mapping_for(wrapped))
    assert bits(dict(plain.named_parameters())) == bits(state_of(after))


def of_peft(kind: str, **parts: nn.Module) -> nn.Module:
    """A module of one of PEFT's classes, which is not installed, with these modules in it."""
    module = type("Special", (type(kind, (nn.Module,), {"__module__": "peft.tuners"}),), {})()
    for name, part in parts.items():
        module.add_module(name, part)
    return module


def adapted() -> nn.Module:
    """Two layers, the first with an adapter whose parts hang beside it, as PEFT makes it."""
    lora = nn.ModuleDict({"default": nn.Linear(3, 2, bias=False)})
    first = of_peft("BaseTunerLayer", base_layer=nn.Linear(3, 2), lora_A=lora)
    model = nn.ModuleDict({"first": first, "second": nn.Linear(2, 2)})
    return of_peft("PeftModel", base_model=of_peft("BaseTuner", model=model))


def test_adapters_hold_nothing_and_their_layers_what_they_held() -> None:
    before = "base_model.model."
    inside = {
        before + "first.base_layer.weight": [Slice("first.weight")],
        before + "first.base_layer.bias": [Slice("first.bias")],
        before + "first.lora_A.default.weight": [],
        before + "second.weight": [Slice("second.weight")],
        before + "second.bias": [Slice("second.bias")],
    }
    assert live.mapping_for(adapted()) == inside
    wrapped = nn.DataParallel(adapted())
    assert live.mapping_for(wrapped) == {f"module.{name}": held for name, held in inside.items()}


def test_a_model_that_has_a_layer_like_an_adapters() -> None:
    """The name alone says nothing."""
    model = nn.ModuleDict({"base_model": nn.ModuleDict({"base_layer": nn.Linear(2, 2)})})
    assert live.mapping_for(model) == {}


class FullyShardedDataParallel(nn.Module):
    """Named as torch's, which needs a process group."""

    def __init__(self) -> None:
        super().__init__()
        self._flat_param = nn.Parameter(torch.ones(5))


def saved_apart() -> nn.Module:
    return of_peft("AuxiliaryTrainingWrapper", original_module=nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (FullyShardedDataParallel, "parameters of 'decoder' are flattened and sharded by Fully"),
        (saved_apart, "'decoder' has weights of its adapter in place of the model's"),
    ],
)
def test_what_is_not_in_its_place_is_refused(module: type[nn.Module], message: str) -> None:
    with pytest.raises(UnsupportedInputError, match=message):
        live.mapping_for(nn.ModuleDict({"decoder": module()}))
