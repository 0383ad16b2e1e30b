"""Recognises tensors that hold codes in place of weights, by names, dtypes and shapes alone.

The code tensors of a layout are asked for first, so that a message can name one of them with its
layout in the field's terms. Scales and zero points whose codes lie elsewhere are recognised after
that. Names are looked up and never searched, so the time is linear in the number of tensors.

Scales of a cache of keys and values (``k_scale``) or of activations (``input_scale``) say nothing
about the weights beside them, which are plain numbers where nothing else tells otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import lt

from patchc.checkpoint.header import TensorInfo

Tensors = Mapping[str, TensorInfo]

_FP8 = ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
_PACKED_FLOATS = {"F4": "4-bit floats", "F6_E2M3": "6-bit floats", "F6_E3M2": "6-bit floats"}
_INTEGERS = ("U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64")
_EXPONENTS = ("U8", "F8_E8M0")
_MX_BLOCK = 32

_SCALES = ("_scale_inv", "_scale", "_scales")
"""What the name of a tensor's scales has after its own."""
_SCALES_OF_MODULE = ("scale", "_scale", "qscale_weight")

_BESIDE_CODES = {
    "absmax": "bitsandbytes 4-bit",
    "quant_map": "bitsandbytes 4-bit",
    "nested_absmax": "bitsandbytes 4-bit",
    "nested_quant_map": "bitsandbytes 4-bit",
    "SCB": "bitsandbytes LLM.int8",
    "qzeros": "GPTQ or AWQ",
    "g_idx": "GPTQ",
    "weight_g_idx": "compressed-tensors pack-quantized",
    "weight_scale": "scales of quantised weights",
    "weight_scale_2": "scales of quantised weights",
    "weight_scales": "scales of quantised weights",
    "weight_global_scale": "scales of quantised weights",
    "weight_zero_point": "zero points of quantised weights",
    "qscale_weight": "scales of quantised weights",
}
"""Last parts of names that only quantised checkpoints have, whatever lies beside them."""


def find_quantised(tensors: Tensors) -> tuple[str, str] | None:
    """Find a tensor that shows that weights are quantised.

    Args:
        tensors: of a checkpoint, or of one of its shards, by name.

    Returns:
        The name of the first such tensor and its layout; None if all weights are plain numbers.
    """
    for look in (_layout_of_codes, _layout_of_companion):
        for name, info in tensors.items():
            if layout := look(name, info, tensors):
                return name, layout
    return None


def _layout_of_codes(name: str, info: TensorInfo, tensors: Tensors) -> str | None:
    leaf = name.rpartition(".")[2]
    module = name[: len(name) - len(leaf)]
    dtype = info.dtype.name
    if dtype in _FP8 and "scale" not in leaf:
        return _fp8(info, _scales_of(name, module, tensors))
    if dtype in _PACKED_FLOATS:
        return f"{_PACKED_FLOATS[dtype]}, {dtype}"
    if by_name := _BY_NAME.get(leaf) or _BY_END.get("_" + leaf.rpartition("_")[2]):
        return by_name(name, module, info, tensors)
    if _is_bitsandbytes(name, tensors):
        return _bitsandbytes(name, tensors)
    if len(info.shape) < 2:
        return None
    scales, weight = any(name + end in tensors for end in _SCALES), _is_weight(leaf)
    if dtype in _INTEGERS and (scales or weight):
        return _integers(name, module, info, tensors)
    return "numbers with scales beside them" if scales and weight else None


def _layout_of_companion(name: str, info: TensorInfo, _tensors: Tensors) -> str | None:
    leaf = name.rpartition(".")[2]
    if ".quant_state." in name:
        return "bitsandbytes 4-bit"
    if info.dtype.name in (*_FP8, "F8_E8M0") or name.endswith("_scale_inv"):
        return "scales of quantised weights"
    if leaf.endswith("_scales") and info.dtype.name == "U8":
        return "scales of quantised weights"
    return _BESIDE_CODES.get(leaf)


def _is_weight(leaf: str) -> bool:
    """Whether a name is one of a linear layer's weights; experts are stacked without a suffix."""
    return leaf == "weight" or leaf.endswith(("_weight", "_proj"))


def _scales_of(name: str, module: str, tensors: Tensors) -> TensorInfo | None:
    weight = name.removesuffix("_qdata")
    beside = (*(weight + end for end in _SCALES), *(module + one for one in _SCALES_OF_MODULE))
    return next((tensors[one] for one in beside if one in tensors), None)


def _fp8(codes: TensorInfo, scales: TensorInfo | None) -> str:
    """Floats of 8 bits; how their scales lie tells the layout."""
    if scales is None:
        return f"FP8, {codes.dtype.name}, with no scales beside it"
    count, width = math.prod(scales.shape), codes.shape[-1] if codes.shape else 1
    exponents = scales.dtype.name in _EXPONENTS
    if exponents and count * _MX_BLOCK == math.prod(codes.shape):
        return "MXFP8"
    if count == 1:
        return "FP8 with one scale"
    if count * width == math.prod(codes.shape):
        return "FP8 with a scale for each row"
    if len(scales.shape) > 1 and all(map(lt, scales.shape[-2:], codes.shape[-2:])):
        return "FP8 with block scales" + (" in E8M0" if exponents else "")
    return "FP8 with scales"


def _is_bitsandbytes(name: str, tensors: Tensors) -> bool:
    return f"{name}.absmax" in tensors or f"{name}.quant_map" in tensors


def _bitsandbytes(name: str, tensors: Tensors) -> str:
    kinds = (k for k in ("nf4", "fp4") if f"{name}.quant_state.bitsandbytes__{k}" in tensors)
    nested = ", double-quantised" if f"{name}.nested_absmax" in tensors else ""
    return f"bitsandbytes {next((k.upper() for k in kinds), '4-bit')}{nested}"


def _integers(name: str, module: str, info: TensorInfo, tensors: Tensors) -> str:
    """A matrix of integers where weights stand."""
    if f"{module}SCB" in tensors:
        return "bitsandbytes LLM.int8"
    scales, dtype = _scales_of(name, module, tensors), info.dtype.name
    if f"{name}_scale_2" in tensors:
        return "NVFP4 of ModelOpt"
    if scales is None:
        grouped = f"{module}scales" in tensors
        return f"{dtype} with scales of groups" if grouped else f"{dtype} where weights stand"
    if scales.dtype.name in _FP8:
        return "NVFP4"
    if scales.dtype.name in _EXPONENTS and _in_pairs(info, scales):
        return "MXFP4"
    return "INT8 with scales" if dtype == "I8" else f"{dtype} with scales"


def _in_pairs(codes: TensorInfo, scales: TensorInfo) -> bool:
    """Whether there is a scale for 32 codes, two of them a byte."""
    return math.prod(scales.shape) * _MX_BLOCK == 2 * math.prod(codes.shape)


def _qweight(_name: str, module: str, info: TensorInfo, tensors: Tensors) -> str:
    if f"{module}qweight_type" in tensors:
        return "blocks of GGUF"
    if f"{module}forward_hadamard_matrix" in tensors:
        return "FP-Quant"
    scales = tensors.get(f"{module}scales")
    if f"{module}g_idx" in tensors:
        return "GPTQ"
    if scales is None or not scales.shape or not info.shape:
        return "GPTQ or AWQ"
    return "GPTQ" if info.shape[-1] == scales.shape[-1] else "AWQ"


def _packed(name: str, _module: str, info: TensorInfo, tensors: Tensors) -> str | None:
    weight = name.removesuffix("_packed")
    scales = tensors.get(f"{weight}_scale")
    if f"{weight}_global_scale" in tensors:
        return "NVFP4 of compressed-tensors, nvfp4-pack-quantized"
    if scales is not None and scales.dtype.name in _EXPONENTS:
        bits = "4" if _in_pairs(info, scales) else "6"
        return f"MXFP{bits} of compressed-tensors, mxfp{bits}-pack-quantized"
    known = scales is not None or _is_weight(weight.rpartition(".")[2])
    return "compressed-tensors pack-quantized" if known else None


def _blocks(name: str, _module: str, info: TensorInfo, tensors: Tensors) -> str | None:
    weight = name.removesuffix("_blocks")
    known = f"{weight}_scales" in tensors or _is_weight(weight.rpartition(".")[2])
    return "MXFP4, blocks with scales" if known and info.dtype.name in _INTEGERS else None


def _hqq(_name: str, module: str, info: TensorInfo, tensors: Tensors) -> str | None:
    """Their codes may be stored as floats; an attention may call a plain matrix so, too."""
    known = (
        info.dtype.name in _INTEGERS or f"{module}zero" in tensors or f"{module}nbits" in tensors
    )
    return "HQQ or SINQ" if known else None


def _called(
    layout: str, companion: str = ""
) -> Callable[[str, str, TensorInfo, Tensors], str | None]:
    """A layout of code tensors with a name of their own, perhaps only with another beside them."""

    def look(_name: str, module: str, _info: TensorInfo, tensors: Tensors) -> str | None:
        return layout if not companion or module + companion in tensors else None

    return look


_BY_NAME: dict[str, Callable[[str, str, TensorInfo, Tensors], str | None]] = {
    "qweight": _qweight,
    "dqweight": _called("FP-Quant"),
    "W_q": _hqq,
    "_data": _called("optimum-quanto"),
    "compressed": _called("compressed-tensors, sparse with a bitmask", "bitmask"),
    "codes": _called("AQLM", "codebooks"),
    "indices": _called("VPTQ", "centroids.weight"),
    "dense_weights": _called("SpQR", "row_offsets"),
    "embedding_quantized": _called("integers with scales", "embedding_scale"),
    "quantized_weight_values": _called("Four Over Six"),
}
_BY_END: dict[str, Callable[[str, str, TensorInfo, Tensors], str | None]] = {
    "_packed": _packed,
    "_blocks": _blocks,
    "_qdata": _called("torchao"),
    "_qweight": _called("GPTQ or AWQ"),
}
