"""The tensors of quantised layers, as the libraries that make them lay them out.

One linear layer of 128 outputs and 256 inputs, unless a layout is of stacked experts. Each layout
has what it is called in an error, and its tensors, the one to be named first.
"""

from __future__ import annotations

import numpy as np
from tiny_checkpoints import Raw

LAYER = "model.layers.0.mlp.up_proj."
EXPERTS = "model.layers.0.mlp.experts."
_BITS = {"F4": 4, "F6_E2M3": 6}
_BYTES = {"8": 1, "16": 2, "32": 4, "64": 8}

_NF4 = "weight.quant_map F32 16; weight.quant_state.bitsandbytes__nf4 U8 90"
_NESTED = "weight.nested_absmax F32 2; weight.nested_quant_map F32 256"
_GPTQ = "qzeros I32 2 16; scales F16 2 128"

LAYOUTS: dict[str, tuple[str, str]] = {
    # bitsandbytes
    "nf4": ("bitsandbytes NF4", f"weight U8 16384 1; weight.absmax F32 512; {_NF4}"),
    "nf4, double": (
        "bitsandbytes NF4, double-quantised",
        f"weight U8 16384 1; weight.absmax U8 512; {_NESTED}; {_NF4}",
    ),
    "nf4 in bf16": ("bitsandbytes NF4", f"weight BF16 8192 1; weight.absmax F32 512; {_NF4}"),
    "fp4": (
        "bitsandbytes FP4",
        "weight U8 16384 1; weight.absmax F32 512; weight.quant_map F32 16; "
        "weight.quant_state.bitsandbytes__fp4 U8 90",
    ),
    "llm.int8": ("LLM.int8", "weight I8 128 256; SCB F32 128; weight_format U8"),
    # compressed-tensors
    "w4a16": (
        "pack-quantized",
        "weight_packed I32 128 32; weight_scale BF16 128 2; weight_shape I64 2",
    ),
    "w4a16 asymmetric": (
        "pack-quantized",
        "weight_packed I32 128 32; weight_scale BF16 128 2; weight_shape I64 2; "
        "weight_zero_point I32 16 2",
    ),
    "w4a16 with order": (
        "pack-quantized",
        "weight_packed I32 128 32; weight_scale BF16 128 2; weight_shape I64 2; "
        "weight_g_idx I32 256",
    ),
    "fp8 per tensor": ("FP8 with one scale", "weight F8_E4M3 128 256; weight_scale BF16 1"),
    "fp8 static": (
        "FP8 with one scale",
        "weight F8_E4M3 128 256; weight_scale F32; input_scale F32",
    ),
    "fp8 per row": (
        "FP8 with a scale for each row",
        "weight F8_E4M3 128 256; weight_scale BF16 128 1",
    ),
    "fp8 blocks": ("FP8 with block scales", "weight F8_E4M3 128 256; weight_scale BF16 1 2"),
    "w8a8": ("INT8 with scales", "weight I8 128 256; weight_scale BF16 128 1"),
    "nvfp4": (
        "NVFP4",
        "weight_packed U8 128 128; weight_scale F8_E4M3 128 16; weight_global_scale F32 1; "
        "input_global_scale F32 1",
    ),
    "mxfp4": ("MXFP4", "weight_packed U8 128 128; weight_scale U8 128 8"),
    "mxfp6": ("MXFP6", "weight_packed U8 128 192; weight_scale U8 128 8"),
    "mxfp8": ("MXFP8", "weight F8_E4M3 128 256; weight_scale U8 128 8"),
    "sparse with a bitmask": (
        "sparse with a bitmask",
        "compressed BF16 128 128; bitmask U8 128 32; shape I64 2",
    ),
    # ModelOpt
    "modelopt nvfp4": (
        "NVFP4 of ModelOpt",
        "weight U8 128 128; weight_scale F8_E4M3 128 16; weight_scale_2 F32; input_scale F32",
    ),
    # GPTQ and AWQ
    "gptq": ("GPTQ", f"qweight I32 32 128; {_GPTQ}; g_idx I32 256; bias F16 128"),
    "gptq without g_idx": ("GPTQ", f"qweight I32 32 128; {_GPTQ}"),
    "awq": ("AWQ", f"qweight I32 256 16; {_GPTQ}"),
    # FP8 and FP4 in blocks, as models are released in them
    "deepseek v3": (
        "FP8 with block scales",
        "weight F8_E4M3 128 256; weight_scale_inv F32 1 2",
    ),
    "deepseek ue8m0": (
        "FP8 with block scales in E8M0",
        "weight F8_E4M3 128 256; weight_scale_inv U8 1 2",
    ),
    "deepseek e8m0": (
        "FP8 with block scales in E8M0",
        "weight F8_E4M3 128 256; scale F8_E8M0 1 2",
    ),
    "deepseek v4": ("MXFP4", "weight I8 128 128; weight_scale_inv U8 128 8"),
    "fireworks mxfp8": ("MXFP8", "weight F8_E4M3 128 256; weight_scale_inv U8 128 8"),
    "minimax mxfp8": ("MXFP8", "weight F8_E4M3 128 256; weight_scale_inv F8_E8M0 128 8"),
    "fbgemm": ("FP8 with a scale for each row", "weight F8_E4M3 128 256; weight_scale F32 128 1"),
    "mistral": (
        "FP8 with one scale",
        "weight F8_E4M3 128 256; qscale_weight BF16; qscale_act BF16",
    ),
    "fnuz": ("FP8 with one scale", "weight F8_E4M3FNUZ 128 256; weight_scale F32 1"),
    "e5m2": ("FP8 with one scale", "weight F8_E5M2 128 256; weight_scale F32 1"),
    "fp8 alone": ("F8_E4M3, with no scales", "weight F8_E4M3 128 256"),
    "f4": ("4-bit floats", "weight F4 128 256; weight_scale F8_E8M0 128 8"),
    "f6": ("6-bit floats", "weight F6_E2M3 128 256; weight_scale F8_E8M0 128 8"),
    # what else transformers reads
    "quanto int8": (
        "optimum-quanto",
        "weight._data I8 128 256; weight._scale BF16 128 1; input_scale F32; output_scale F32",
    ),
    "quanto float8": (
        "FP8 with a scale for each row",
        "weight._data F8_E4M3 128 256; weight._scale BF16 128 1",
    ),
    "quanto int4": (
        "optimum-quanto",
        "weight._data._data U8 64 256; weight._scale BF16 256 1; weight._shift BF16 256 1",
    ),
    "hqq": (
        "HQQ",
        "W_q U8 64 256; scale F16 512 1; zero F16 512 1; nbits I32; group_size I32; shape I64 2",
    ),
    "hqq as float": ("HQQ", "W_q F16 64 128; scale F16 512 1; zero F16 512 1"),
    "eetq": ("INT8 with scales", "weight I8 256 128; weight_scales F16 128"),
    "aqlm": ("AQLM", "codes I16 128 32 1; codebooks F16 1 65536 1 8; scales F16 128 1 1 1"),
    "vptq": (
        "VPTQ",
        "indices I16 1 32 256; centroids.weight BF16 1 2048; weight_scale BF16 256; "
        "weight_bias BF16 256; perm I16 256",
    ),
    "spqr": ("SpQR", "dense_weights I32 512; row_offsets I32 129; col_vals I32 9; in_perm I64 0"),
    "higgs": (
        "I16 with scales of groups",
        "weight I16 32 256; scales F16 128 1; tables F16 16; tables2 F16 16 16 2",
    ),
    "bitnet": ("U8 with scales", "weight U8 32 256; weight_scale BF16 1"),
    "fp-quant": (
        "FP-Quant",
        "qweight U8 128 128; scales U8 128 8; weight_global_scale F32 1; "
        "forward_hadamard_matrix BF16 32 32",
    ),
    "fp-quant, decoded": ("FP-Quant", "dqweight BF16 128 256"),
    "torchao float8": (
        "FP8 with a scale for each row",
        "_weight_qdata F8_E4M3 128 256; _weight_scale F32 128 1",
    ),
    "torchao int4": (
        "torchao",
        "_weight_qdata U8 128 128; _weight_scale BF16 2 128; _weight_zero_point BF16 2 128",
    ),
    "mlx": ("U32 with scales of groups", "weight U32 128 32; scales BF16 128 4; biases BF16 128 4"),
    "quark mxfp4": ("MXFP4", "weight U8 128 128; weight_scale U8 128 8"),
    "four over six": (
        "Four Over Six",
        "quantized_weight_values U8 128 128; quantized_weight_scale_factors F8_E4M3 128 16; "
        "quantized_weight_amax F32 1",
    ),
    "gemma": (
        "integers with scales",
        "embedding_quantized U8 128 128; embedding_scale F32 128 1",
    ),
    "gguf blocks": ("blocks of GGUF", "qweight U8 128 144; qweight_type U8"),
    "gguf in weight": ("U8 where weights stand", "weight U8 128 144"),
    "rounded in place": ("numbers with scales", "weight BF16 128 256; weight_scale F32 128 1"),
    "scales alone": ("scales of quantised weights", "weight_scale_inv F32 1 2"),
    "exponents alone": ("scales of quantised weights", "scale F8_E8M0 1 2"),
}

STACKED: dict[str, tuple[str, str]] = {
    "gpt-oss": (
        "MXFP4",
        "gate_up_proj_blocks U8 2 64 2 16; gate_up_proj_scales U8 2 64 2; "
        "gate_up_proj_bias BF16 2 64",
    ),
    "fp8 experts": (
        "FP8 with block scales",
        "gate_up_proj F8_E4M3 2 128 256; gate_up_proj_scale_inv F32 2 1 2",
    ),
    "fbgemm experts": (
        "FP8 with scales",
        "gate_up_proj F8_E4M3 2 256 128; gate_up_proj_scale F32 2 1 128",
    ),
    "packed experts": (
        "pack-quantized",
        "gate_up_proj_packed I32 2 128 32; gate_up_proj_scale BF16 2 128 2",
    ),
    "blocks alone": ("MXFP4, blocks", "down_proj_blocks U8 2 64 2 16"),
    "scales of blocks alone": ("scales of quantised weights", "down_proj_scales U8 2 64 2"),
    "packed experts alone": ("pack-quantized", "down_proj_packed I32 2 128 32"),
    "gptq experts": ("GPTQ or AWQ", "down_proj_qweight I32 2 32 128"),
    "integer weights of experts": ("I8 where weights stand", "w13_weight I8 2 64 32"),
    "integer experts": ("U8 where weights stand", "down_proj U8 2 128 128"),
}


def make(listed: str, prefix: str = LAYER, seed: int = 0) -> dict[str, Raw]:
    """Make the tensors of a layout: random bytes, in the order of their names."""
    rng = np.random.default_rng(seed)
    made = {}
    for entry in sorted(listed.split("; ")):
        name, dtype, *sizes = entry.split()
        shape = tuple(map(int, sizes))
        count = int(np.prod(shape))
        width = dtype.lstrip("BUIF").split("_")[0]
        size = count * _BITS[dtype] // 8 if dtype in _BITS else count * _BYTES[width]
        made[prefix + name] = Raw(dtype, shape, rng.bytes(size))
    return made


def first_name(listed: str, prefix: str = LAYER) -> str:
    """The tensor that an error names."""
    return prefix + listed.split()[0]
