"""Loaded models in another state than the patch expects are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from live_states import State, Update, bits, make_update, state_of, stored, to_torch
from safetensors.numpy import load_file
from tiny_checkpoints import nudge, write_model

import patchc
import patchc.torch as live
from patchc.errors import (
    AlreadyPatchedError,
    NotPatchedError,
    PartlyPatchedError,
    UsageError,
    WrongBaseError,
)

FILE = "model.safetensors"


def test_applied_twice_or_reverted_from_the_base_is_refused(update: Update) -> None:
    state = state_of(update.after)
    for base in (None, update.base):
        with pytest.raises(AlreadyPatchedError, match="the loaded model already holds"):
            live.apply_(state, update.patch, base=base)
    assert bits(state) == stored(update.tuned)
    state = state_of(update.before)
    for base in (None, update.base, update.tuned):
        with pytest.raises(NotPatchedError, match="does not hold"):
            live.revert_(state, update.patch, base=base)
    assert bits(state) == stored(update.base)


@pytest.mark.parametrize("with_base", [False, True])
def test_a_partly_patched_model_is_refused(update: Update, with_base: bool) -> None:
    state = state_of({**update.before, "b.weight": update.after["b.weight"]})
    found = bits(state)
    for verb in (live.apply_, live.revert_):
        with pytest.raises(PartlyPatchedError, match="the loaded model is partly patched"):
            verb(state, update.patch, base=update.base if with_base else None)
    assert bits(state) == found


@pytest.mark.parametrize("name", ["a.weight", "k.fixed", "f.scale"])
@pytest.mark.parametrize("with_base", [False, True])
def test_one_foreign_word_is_refused_by_name(update: Update, name: str, with_base: bool) -> None:
    state = state_of(update.before)
    state[name].view(-1).view(torch.uint8)[-1] ^= 4
    found = bits(state)
    for verb in (live.apply_, live.revert_):
        with pytest.raises(WrongBaseError, match=f"the loaded model is not .*{name}"):
            verb(state, update.patch, base=update.base if with_base else None)
    assert bits(state) == found


def test_a_foreign_base_on_disk_is_refused_by_its_path(tmp_path: Path, update: Update) -> None:
    other = write_model(
        tmp_path / "other", {**update.before, "k.fixed": update.before["k.fixed"] * 2}
    )
    with pytest.raises(WrongBaseError, match=f"{other} is not .*k.fixed"):
        live.apply_(state_of(update.before), update.patch, base=other, verify=False)


def _without(state: State, name: str) -> None:
    del state[name]


def _renamed(state: State, name: str) -> None:
    state["other"] = state.pop(name)


def _cast(state: State, name: str) -> None:
    state[name] = state[name].to(torch.float32)


def _reshaped(state: State, name: str) -> None:
    state[name] = state[name].reshape(100, 70)


def _wrapped(state: State, name: str) -> None:
    state[f"module.{name}"] = state.pop(name)


def _added(state: State, name: str) -> None:
    state[f"{name}.lora"] = torch.ones(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without, "does not hold tensor 'a.weight'"),
        (_renamed, "no tensor 'other'"),
        (_cast, r"'a.weight' is float32 and .* has bfloat16: .* with dtype=torch.bfloat16"),
        (_reshaped, r"'a.weight' has shape \[100, 70\] and .* \[70, 100\]; .*mapping="),
        (_added, "no tensor 'a.weight.lora'; say in mapping="),
        (_wrapped, "no tensor 'module.a.weight', and one 'a.weight': pass the .* 'module.'; say"),
    ],
)
def test_other_tensors_are_refused_by_name(
    update: Update, change: Callable[[State, str], None], message: str
) -> None:
    state = state_of(update.before)
    change(state, "a.weight")
    found = bits(state)
    with pytest.raises(WrongBaseError, match=message):
        live.apply_(state, update.patch)
    assert bits(state) == found


def test_a_parameter_without_words_is_left_alone(tmp_path: Path) -> None:
    tensors = {"a": np.arange(9, dtype=np.int32), "none": np.zeros((5, 0), np.float32)}
    update = make_update(tmp_path, tensors, tensors | {"a": np.arange(1, 10, dtype=np.int32)})
    state = state_of(tensors)
    live.apply_(state, update.patch)
    assert bits(state) == stored(update.tuned)


def test_a_parameter_without_slices_is_left_alone(update: Update) -> None:
    state = state_of(update.before)
    state["adapter"] = torch.ones(3)
    live.apply_(state, update.patch, mapping={"adapter": []})
    assert bits({"adapter": state.pop("adapter")}) == bits({"adapter": torch.ones(3)})
    assert bits(state) == stored(update.tuned)


def test_what_is_no_model_is_refused(attention: Update) -> None:
    model = torch.nn.Linear(2, 2)
    for given, patch in ((attention.base, attention.patch), (attention.patch, model)):
        with pytest.raises(UsageError, match=r"is a PosixPath; pass a module .*, then the patch"):
            live.apply_(given, patch)


def test_what_is_no_tensor_and_buffers_of_the_model_are_let_be(attention: Update) -> None:
    state = state_of(attention.before)
    live.apply_(state | {"extra": {"not": "a tensor"}}, attention.patch)
    assert bits(state) == stored(attention.tuned)
    module = torch.nn.Module()
    for name in "qkv":
        weight = to_torch(attention.before[f"{name}.weight"])
        module.register_module(name, torch.nn.Module())
        module.get_submodule(name).weight = torch.nn.Parameter(weight)
    module.register_buffer("embed", to_torch(attention.before["embed"]))
    module.register_buffer("cache", torch.ones(4), persistent=False)
    live.apply_(module, attention.patch)
    assert bits(module.state_dict()) == stored(attention.tuned)
    assert module.cache.tolist() == [1.0] * 4


def test_a_model_loaded_in_another_dtype_is_told_so(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import tiny_llama

    base = tiny_llama.write_base(tmp_path / "base")
    tuned = {name: np.asarray(tensor) for name, tensor in load_file(base / FILE).items()}
    name = "model.layers.1.mlp.up_proj.weight"
    tuned[name] = nudge(tuned[name], 0.2, 1)
    write_model(tmp_path / "tuned", tuned)
    patch = tmp_path / "update.patchc"
    patchc.diff(base, tmp_path / "tuned", out=patch, weights_only=True)
    for dtype in (torch.float32, torch.float16):
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
        found = bits(model.state_dict())
        told = rf"is {str(dtype)[6:]} and .* has bfloat16: .* load .* with dtype=torch\.bfloat16"
        with pytest.raises(WrongBaseError, match=told) as caught:
            live.apply_(model, patch)
        assert "fused" not in str(caught.value)
        assert bits(model.state_dict()) == found
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    live.apply_(model, patch)
    with pytest.raises(WrongBaseError, match="is float32 and"):
        live.revert_(model.float(), patch)


def test_a_fused_parameter_in_another_dtype_is_told_so(attention: Update) -> None:
    qkv = np.concatenate([attention.before[f"{name}.weight"] for name in "qkv"])
    state = {"qkv": to_torch(qkv).half(), "embed": to_torch(attention.before["embed"])}
    mapping = {"qkv": [live.Slice(f"{name}.weight") for name in "qkv"]}
    with pytest.raises(WrongBaseError, match=r"'qkv' is float16 and .* has bfloat16: .*dtype="):
        live.apply_(state, attention.patch, mapping=mapping)
