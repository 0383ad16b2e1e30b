"""Torch tensors as words: their dtypes, their memory, and whether they can be changed in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from patchc.dtypes import BY_NAME, DType
from patchc.errors import UnsupportedInputError, UsageError

_TORCH_NAMES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16",
    "U32": "uint32", "I32": "int32", "U64": "uint64", "I64": "int64", "F64": "float64",
    "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz", "C64": "complex64",
}  # fmt: skip
_TORCH: dict[str, torch.dtype] = {
    name: getattr(torch, own) for name, own in _TORCH_NAMES.items() if hasattr(torch, own)
}
_DTYPES = {own: BY_NAME[name] for name, own in _TORCH.items()}
_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Live = torch.nn.Module | Mapping[str, object]


@dataclass(frozen=True)
class Memory:
    """Bytes ``start`` … ``stop − 1`` of a device."""

    device: torch.device
    start: int
    stop: int


def memory_of(tensor: torch.Tensor) -> Memory:
    """Where a contiguous tensor lies."""
    start = tensor.data_ptr()
    return Memory(tensor.device, start, start + tensor.numel() * tensor.element_size())


def words_of(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor's memory as words in one dimension, of a signed integer type."""
    return tensor.detach().view(_WORDS[tensor.element_size()]).reshape(-1)


def torch_dtype(dtype: DType, tensor: str) -> torch.dtype:
    """Torch's dtype for one of a checkpoint.

    Raises:
        UnsupportedInputError: this torch has none; names the tensor.
    """
    own = _TORCH.get(dtype.name)
    if own is None:
        raise UnsupportedInputError(
            f"tensor {tensor!r} has dtype {dtype.name}, for which this torch has no tensors of one "
            "element per word; apply the patch to the checkpoint's folder instead"
        )
    return own


def name_of(dtype: DType) -> str:
    """Torch's name for a dtype of a checkpoint, or the checkpoint's where this torch has none."""
    own = _TORCH.get(dtype.name)
    return dtype.name if own is None else str(own).removeprefix("torch.")


def dtype_of(tensor: torch.Tensor) -> DType | None:
    """The dtype of a checkpoint for a tensor's own; None if there is none."""
    return _DTYPES.get(tensor.dtype)


def check_plain(name: str, tensor: torch.Tensor) -> None:
    """Refuse a tensor that is not plain memory on the CPU or a CUDA device, in row-major order.

    Raises:
        UnsupportedInputError: naming the tensor.
    """
    if torch.nn.parameter.is_lazy(tensor):
        raise UnsupportedInputError(
            f"parameter {name!r} is lazy, without a shape or memory; call the model once, or load "
            "its weights, before it is patched"
        )
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        raise UnsupportedInputError(
            f"parameter {name!r} is a {type(tensor).__name__}, not plain memory; pass a state dict "
            "of the local tensors, with mapping= for the rows that they hold"
        )
    if tensor.is_meta:
        raise UnsupportedInputError(
            f"parameter {name!r} is on device meta, without memory; load its weights first, all of "
            "them, with none offloaded"
        )
    if tensor.device.type not in ("cpu", "cuda"):
        raise UnsupportedInputError(
            f"parameter {name!r} is on device {tensor.device}; a model is patched on the CPU or on "
            "a CUDA device"
        )
    if tensor.is_neg() or tensor.is_conj():
        raise UnsupportedInputError(
            f"parameter {name!r} is a negated or conjugated view, whose memory holds other values; "
            "resolve it first (resolve_neg, resolve_conj)"
        )
    if tensor.layout is not torch.strided or not tensor.is_contiguous():
        raise UnsupportedInputError(
            f"parameter {name!r} is not in row-major order (shape {list(tensor.shape)}, strides "
            f"{list(tensor.stride()) if tensor.layout is torch.strided else 'none'}); "
            "load patched_tensors(…) instead"
        )


def check_model(model: Live) -> None:
    """Refuse what is neither a module nor a mapping.

    Raises:
        UsageError: naming its type.
    """
    if not isinstance(model, torch.nn.Module | Mapping):
        raise UsageError(
            f"the model is a {type(model).__name__}; pass a module or a state dict, then the "
            "patch; for a model in files there is patchc.apply"
        )


def named_tensors(model: Live) -> tuple[dict[str, torch.Tensor], frozenset[str]]:
    """A model's parameters and buffers by name, tied ones under each of theirs.

    The second answer names those that a checkpoint of the model must have: parameters, and all of a
    state dict. A model may create buffers itself.
    """
    if not isinstance(model, torch.nn.Module):
        held = {name: t for name, t in model.items() if isinstance(t, torch.Tensor)}
        return held, frozenset(held)
    parameters = {unwrapped_name(n): p for n, p in model.named_parameters(remove_duplicate=False)}
    buffers = {unwrapped_name(n): b for n, b in model.named_buffers(remove_duplicate=False)}
    return {**buffers, **parameters}, frozenset(parameters)


def unwrapped_name(name: str) -> str:
    """A parameter's name without what torch.compile puts before those of a module that it wraps."""
    return name.replace("_orig_mod.", "")
