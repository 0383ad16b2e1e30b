"""Quantised weights are recognised by names, dtypes and shapes, and plain ones are left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantised_layouts import EXPERTS, LAYER, LAYOUTS, STACKED, first_name, make
from tiny_checkpoints import Raw, normal, tree, write_model

import patchc
from patchc import MergeRecipe
from patchc.errors import CheckpointError, UnsupportedInputError

TASK = MergeRecipe("task-arithmetic")
PLAIN: dict[str, Any] = {
    "model.embed_tokens.weight": normal((8, 4), "BF16", 1),
    "model.norm.weight": normal((4,), "BF16", 2),
}
CASES = {name: (*one, LAYER) for name, one in LAYOUTS.items()} | {
    name: (*one, EXPERTS) for name, one in STACKED.items()
}


def _merge(base: Path, tuned: Path, out: Path) -> patchc.BuildReport:
    return patchc.build(base, tuned=[tuned], out=out, recipe=TASK)


@pytest.mark.parametrize("case", CASES)
def test_a_layout_is_recognised_and_its_tensor_named(tmp_path: Path, case: str) -> None:
    """There is no configuration at all."""
    layout, listed, prefix = CASES[case]
    base = write_model(tmp_path / "base", PLAIN | make(listed, prefix))
    tuned = write_model(tmp_path / "tuned", PLAIN | make(listed, prefix, seed=1))
    with pytest.raises(UnsupportedInputError) as refused:
        _merge(base, tuned, tmp_path / "out.patchc")
    message = str(refused.value)
    assert f"base: tensor {first_name(listed, prefix)!r} is quantised (" in message
    assert layout in message
    assert "use the unquantised checkpoint. diff, apply and revert do take" in message
    assert message.endswith("quantise the outcome, and diff the quantised base and that")
    assert not (tmp_path / "out.patchc").exists()


@pytest.mark.parametrize("case", CASES)
def test_updates_of_a_layout_are_exact(tmp_path: Path, case: str) -> None:
    _, listed, prefix = CASES[case]
    base = write_model(tmp_path / "base", PLAIN | make(listed, prefix))
    changed = make(listed, prefix, seed=1)
    other = {name: one for n, (name, one) in enumerate(changed.items()) if n % 2 == 0}
    tuned = write_model(tmp_path / "tuned", PLAIN | make(listed, prefix) | other)
    patchc.diff(base, tuned, out=tmp_path / "q.patchc")
    patchc.apply(tmp_path / "q.patchc", base, out=tmp_path / "there")
    patchc.revert(tmp_path / "q.patchc", tmp_path / "there", out=tmp_path / "back")
    assert tree(tmp_path / "there") == tree(tuned)
    assert tree(tmp_path / "back") == tree(base)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("case", ["nvfp4", "four over six", "mxfp4", "awq", "nf4, double"])
def test_codes_are_named_before_their_scales(tmp_path: Path, case: str, order: int) -> None:
    """Whatever comes first in the file, and in whichever shard it is."""
    layout, listed = LAYOUTS[case]
    tensors = dict(list((PLAIN | make(listed)).items())[::order])
    model = write_model(tmp_path / "model", tensors, shards=2)
    with pytest.raises(UnsupportedInputError) as refused:
        _merge(model, model, tmp_path / "out.patchc")
    assert f"{first_name(listed)!r} is quantised ({layout}" in str(refused.value)


def test_a_shard_of_scales_alone_is_refused_too(tmp_path: Path) -> None:
    """One file of a model, whose codes are in another."""
    layout = {LAYER + "weight_scale_inv": np.ones((1, 2), np.float32)}
    file = write_model(tmp_path / "model", PLAIN | layout) / "model.safetensors"
    with pytest.raises(UnsupportedInputError, match="weight_scale_inv"):
        _merge(file, file, tmp_path / "out.patchc")


@pytest.mark.parametrize("part", ["base", "first", "second"])
def test_every_model_of_a_merge_is_asked(tmp_path: Path, part: str) -> None:
    plain = {LAYER + "weight": normal((128, 256), "BF16", 3)}
    codes = make(LAYOUTS["deepseek v3"][1])
    paths = {
        one: write_model(tmp_path / one, PLAIN | (codes if one == part else plain))
        for one in ("base", "first", "second")
    }
    with pytest.raises(UnsupportedInputError, match=f"{part}: tensor '{LAYER}weight' is quantised"):
        patchc.build(
            paths["base"],
            tuned=[paths["first"], paths["second"]],
            out=tmp_path / "out.patchc",
            recipe=MergeRecipe("ties"),
        )


# What looks like it, and is not ------------------------------------------------------------------

F32, BF16 = np.zeros(4, np.float32), normal((4, 4), "BF16", 5)
LOOKALIKES: dict[str, dict[str, Any]] = {
    "CLIP": {"logit_scale": np.float32(4.6).reshape(()), "text_model.w.weight": BF16},
    "layer scale": {"layer_scale": F32, "layer.weight": BF16, "blocks.0.ls1.scale": F32},
    "a norm called scale": {"h.0.scale": F32, "h.0.offset": F32, "h.0.norm_scale": F32},
    "a scale of each entry of a vector": {"router.bias": F32, "router.bias_scale": F32},
    "scales without what they scale": {"router.per_expert_scale": F32, "router.proj.weight": BF16},
    "scales of the cache": {"self_attn.k_scale": F32[:1], "self_attn.k_proj.weight": BF16},
    "scales of the cache in k_proj": {"k_proj.k_scale": F32[:1], "k_proj.weight": BF16},
    "scales of activations": {"k_proj.input_scale": F32[:1], "k_proj.weight": BF16},
    "weight norm": {"conv.weight_g": F32, "conv.weight_v": BF16, "conv.bias": F32},
    "batch norm": {"bn.num_batches_tracked": Raw("I64", (), bytes(8)), "bn.running_mean": F32},
    "ids": {
        "embeddings.position_ids": Raw("I64", (1, 8), bytes(64)),
        "embeddings.token_type_ids": Raw("I64", (1, 8), bytes(64)),
    },
    "positions relative to each other": {
        "attn.relative_position_index": Raw("I64", (4, 4), bytes(128)),
        "attn.relative_position_bias_table": BF16,
    },
    "masks": {
        "attn.bias": Raw("BOOL", (1, 1, 4, 4), bytes(16)),
        "attn.masked_bias": F32[:1],
        "old_attn.bias": Raw("U8", (1, 1, 4, 4), bytes(16)),
    },
    "a table of experts by token": {
        "mlp.gate.tid2eid": Raw("I32", (8, 2), bytes(64)),
        "mlp.gate.weight": BF16,
    },
    "frequencies": {"rotary_emb.inv_freq": F32, "rotary_emb.cos_cached": BF16},
    "codebooks of an audio codec": {
        "quantizer.codebook.weight": BF16,
        "quantizer.codebook.cluster_size": F32,
        "quantizer.codes": Raw("I64", (4, 4), bytes(128)),
    },
    "blocks of a network": {"conv_blocks": BF16, "down_blocks.0.conv.weight": BF16},
    "a matrix of any name with a scale": {"time": BF16, "time_scale": F32, "time_scales": F32},
    "a query's weight": {"attn.W_q": BF16, "attn.scale": F32, "attn.W_k": BF16},
    "compressed states": {"memory.compressed": BF16, "memory.scale": F32},
    "BLT and the like": {"patch_packed": Raw("I32", (2, 2), bytes(16)), "w.weight": BF16},
}


@pytest.mark.parametrize("case", LOOKALIKES)
def test_plain_weights_are_merged(tmp_path: Path, case: str) -> None:
    base = write_model(tmp_path / "base", PLAIN | LOOKALIKES[case])
    tuned = PLAIN | LOOKALIKES[case] | {"model.norm.weight": normal((4,), "BF16", 9)}
    report = _merge(base, write_model(tmp_path / "tuned", tuned), tmp_path / "out.patchc")
    assert report.entries == 4


# Configurations ----------------------------------------------------------------------------------

FP8 = {"quant_method": "fp8"}
STATED = {
    "at the top": ("config.json", {"quantization_config": FP8}, "quantization_config.*'fp8'"),
    "in a part": (
        "config.json",
        {"text_config": {"inner": [{"quantization_config": FP8}]}},
        "quantization_config.*'fp8'",
    ),
    "older": (
        "config.json",
        {"compression_config": {"quant_method": "compressed-tensors"}},
        "compression_config.*'compressed-tensors'",
    ),
    "mlx": ("config.json", {"quantization": {"bits": 4, "group_size": 64}}, "quantization in"),
    "gptq": ("quantize_config.json", {"bits": 4, "group_size": 128}, "quantize_config.json"),
    "awq": ("quant_config.json", {"w_bit": 4, "q_group_size": 128}, "quant_config.json"),
    "modelopt": (
        "hf_quant_config.json",
        {"producer": {}, "quantization": {"quant_algo": "NVFP4"}},
        "hf_quant_config.json.*'NVFP4'",
    ),
}


@pytest.mark.parametrize("single_file", [False, True])
@pytest.mark.parametrize("case", STATED)
def test_what_a_configuration_says_counts_too(tmp_path: Path, case: str, single_file: bool) -> None:
    file, content, message = STATED[case]
    model = write_model(tmp_path / "model", PLAIN, side_files={file: json.dumps(content)})
    path = model / "model.safetensors" if single_file else model
    with pytest.raises(UnsupportedInputError, match=f"{message}.*remove that statement"):
        _merge(path, path, tmp_path / "out.patchc")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", {"quantization_config": None}),
        ("config.json", {"text_config": {"quantization_config": {}}}),
        ("config.json", {"quantization": "residual", "codebook": {"quantization": {"dims": 8}}}),
        ("config.json", [1, "quantization_config"]),
        (
            "hf_quant_config.json",
            {"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}},
        ),
        ("quant_config.json", {}),
    ],
)
def test_what_says_nothing_about_weights(tmp_path: Path, file: str, content: object) -> None:
    model = write_model(tmp_path / "model", PLAIN, side_files={file: json.dumps(content)})
    assert _merge(model, model, tmp_path / "out.patchc").entries == 0


@pytest.mark.parametrize("file", ["config.json", "quantize_config.json"])
@pytest.mark.parametrize(
    "text", ["{", "[" * 70 + "]" * 70, '{"a": 1, "a": 2}', "[" + "0," * 300_000]
)
def test_a_configuration_that_cannot_be_read(tmp_path: Path, file: str, text: str) -> None:
    model = write_model(tmp_path / "model", PLAIN, side_files={file: text})
    with pytest.raises(CheckpointError, match=f"{file}: not readable JSON"):
        _merge(model, model, tmp_path / "out.patchc")


# Strangers ---------------------------------------------------------------------------------------


def test_hostile_names(tmp_path: Path) -> None:
    """Names of dots and of known ends alone, and one that is far too long for a message."""
    odd = ["x.", "_scale", "_packed", ".quant_state", "_blocks", ".weight.", "..", "qweight."]
    tensors = PLAIN | {f"{'.' * n}{one}": F32 for n, one in enumerate(odd)}
    base = write_model(tmp_path / "base", tensors)
    assert _merge(base, base, tmp_path / "out.patchc").entries == 0
    name = "layers." + "x" * 100_000 + ".qweight"
    model = write_model(tmp_path / "model", {name: Raw("I32", (4, 4), bytes(64))})
    with pytest.raises(UnsupportedInputError, match="is quantised") as refused:
        _merge(model, model, tmp_path / "next.patchc")
    assert len(str(refused.value)) < 500 + len(str(tmp_path))
