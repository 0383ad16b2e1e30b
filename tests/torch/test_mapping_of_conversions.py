"""Which of the conversions that transformers knows can be mapped to rows, and which are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from live_states import bits
from safetensors.torch import load_file
from transformers.core_model_loading import (
    Chunk,
    Concatenate,
    ConversionOps,
    Interleave,
    SplitModulelist,
    Transpose,
    WeightConverter,
    WeightRenaming,
)

import patchc.torch as live
from patchc.errors import UnsupportedInputError
from patchc.torch import Slice


def small() -> Any:
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).to(torch.bfloat16)


def saved(model: Any, folder: Path) -> dict[str, np.ndarray]:
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    return {name: tensor.view(torch.int16).numpy() for name, tensor in tensors.items()}


def assembled(slices: list[Slice], files: Mapping[str, np.ndarray]) -> bytes:
    """The memory of a parameter that holds slices of tensors in files."""
    held: dict[int, bytes] = {}
    following = 0
    for one in slices:
        tensor = files[one.tensor]
        first, stop = one.rows or (0, len(tensor))
        at = following if one.at is None else one.at
        held[at] = tensor[first:stop].tobytes()
        following = at + stop - first
    return b"".join(held[at] for at in sorted(held))


QKV = ["self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"]


@pytest.mark.parametrize(
    "conversions",
    [
        [WeightConverter("self_attn.qkv.weight", QKV, [Chunk(dim=0)])],
        [WeightConverter("mlp.two.weight", ["mlp.gate_proj.weight", "mlp.up_proj.weight"],
                         [Interleave(dim=0), Chunk(dim=0)])],
        [WeightConverter(["mlp.down_proj.upper", "mlp.down_proj.lower"], "mlp.down_proj.weight",
                         [Concatenate(dim=0)])],
        [WeightRenaming(r"^blocks\.", "model.layers."), WeightRenaming("gamma", "norm.weight")],
    ],
    ids=["split", "interleaved rows", "joined", "renamed"],
)  # fmt: skip
def test_conversions_that_move_rows(tmp_path: Path, conversions: list[Any]) -> None:
    model = small()
    model._weight_conversions = conversions
    files = saved(model, tmp_path / "model")
    mapping = live.mapping_for(model)
    assert mapping
    for name, tensor in model.state_dict().items():
        (memory,) = bits({name: tensor}).values()
        assert assembled(mapping.get(name, [Slice(name)]), files) == memory, name


class Special(ConversionOps):
    """A conversion that leaves no trace in the number of columns."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.change = change

    def convert(
        self, input_dict: dict[str, Any], *, target_patterns: list[str], **_: object
    ) -> dict[str, torch.Tensor]:
        ((tensor,),) = input_dict.values()
        return {target_patterns[0]: self.change(tensor)}

    @property
    def reverse_op(self) -> ConversionOps:
        return self


def mirrored(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flip(-1)


def cut(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:-2]


def in_single_precision(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


@pytest.mark.parametrize(
    ("conversion", "parameter"),
    [
        (WeightConverter("w.weight", "self_attn.o_proj.weight", [Transpose(0, 1)]), "o_proj"),
        (
            WeightConverter(["up.left", "up.right"], "mlp.up_proj.weight", [Concatenate(dim=1)]),
            "up",
        ),
        (WeightConverter("both", QKV[:2], [Chunk(dim=1)]), "[qk]_proj"),
        (WeightConverter("embed", "embed_tokens.weight", [Interleave(dim=1)]), "embed_tokens"),
        *((WeightConverter("head", "lm_head.weight", [Special(one)]), "lm_head")
          for one in (mirrored, cut, in_single_precision)),
    ],
    ids=["transposed", "columns joined", "columns split", "columns interleaved", "mirrored", "cut",
         "in another dtype"],
)  # fmt: skip
def test_what_is_not_rows_is_refused_by_name(conversion: Any, parameter: str) -> None:
    model = small()
    model._weight_conversions = [conversion]
    with pytest.raises(UnsupportedInputError, match=rf"{parameter}.* cannot be mapped to rows"):
        live.mapping_for(model)


def test_a_family_that_transposes_some_tensors_is_refused_with_their_names() -> None:
    text = {
        "hidden_size": 256, "intermediate_size": 8, "moe_intermediate_size": [8, 8],
        "moe_num_experts": 4, "moe_k": 2, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 64,
    }  # fmt: skip
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 8}
    config = transformers.Ernie4_5_VLMoeConfig(text_config=text, vision_config=vision)
    with torch.device("meta"):
        model = transformers.Ernie4_5_VLMoeForConditionalGeneration(config)
    gates = [
        rf"'model.language_model.layers.1.mlp.{one}_moe.gate.weight'" for one in ("text", "vision")
    ]
    with pytest.raises(UnsupportedInputError, match=f"^parameters {', '.join(gates)} of the model"):
        live.mapping_for(model)


def test_a_library_that_drops_all_dimensions_of_one_item_as_it_splits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Transformers up to 5.2 does."""
    config = transformers.MixtralConfig(
        vocab_size=8, hidden_size=15, intermediate_size=6, num_hidden_layers=1,
        num_attention_heads=3, num_key_value_heads=3, num_local_experts=3,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.MixtralForCausalLM(config)
    mapping = live.mapping_for(model)
    convert = SplitModulelist.convert

    def squeezing(*arguments: Any, **named: Any) -> dict[str, torch.Tensor]:
        return {name: tensor.squeeze() for name, tensor in convert(*arguments, **named).items()}

    monkeypatch.setattr(SplitModulelist, "convert", squeezing)
    assert live.mapping_for(model) == mapping


def test_quantised_parameters_are_refused_by_name(tmp_path: Path) -> None:
    """Quantised as they are loaded, and loaded from quantised files."""
    small().save_pretrained(tmp_path / "base")
    codes = transformers.BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    loading = transformers.LlamaForCausalLM.from_pretrained
    model: Any = loading(tmp_path / "base", quantization_config=codes)
    model.save_pretrained(tmp_path / "codes")
    names = r"'model.layers.0.self_attn.q_proj.weight', .* and 4 more"
    for one in (model, loading(tmp_path / "codes")):
        with pytest.raises(UnsupportedInputError, match=f"^parameters {names}.* are quantised"):
            live.mapping_for(one)
