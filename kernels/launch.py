"""What every launch on a device shares; torch and triton are imported only when they are needed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from patchc.dtypes import BY_NAME, DType
from patchc.errors import MismatchError, UnsupportedInputError
from patchc.kernels.philox import KEEP_ALL, Retention

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BLOCK = 1024
"""Entries that one program of a device kernel takes."""

MOST_ENTRIES = 2**31 - 1
"""Entries that one launch takes; positions are 32-bit integers."""

OPTIONS: dict[str, Any] = {"enable_fp_fusion": False, "num_warps": 4}
"""Launch options: no contraction of a product and a sum into one rounding."""

_TORCH_NAMES = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
_CODES = {f"torch.{name}": BY_NAME[dtype].code for dtype, name in _TORCH_NAMES.items()}


def on_device(tensor: Tensor) -> bool:
    """Whether the Triton path takes a tensor: on a GPU, or anywhere in Triton's interpreter."""
    return tensor.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"


def launch(kernel: Any, programs: int, *arguments: Any) -> None:
    """Launch a kernel on the device of its first argument; its last constant is :data:`BLOCK`."""
    import torch

    first = arguments[0]
    # Triton launches on the current device.
    with torch.cuda.device(first.device if first.is_cuda else -1):
        kernel[(programs,)](*arguments, BLOCK, **OPTIONS)


def blocks(entries: int) -> int:
    """Programs of a launch over so many entries; at least one.

    Raises:
        UnsupportedInputError: more entries than positions can name.
    """
    if entries > MOST_ENTRIES:
        raise UnsupportedInputError(
            f"{entries} entries in one call; give at most {MOST_ENTRIES}, tile by tile"
        )
    return max(1, -(-entries // BLOCK))


def code_of(tensor: Tensor) -> int:
    """The dtype code of a float tensor (see :mod:`patchc.dtypes`).

    Raises:
        UnsupportedInputError: its dtype is not one that merges.
    """
    code = _CODES.get(str(tensor.dtype))
    if code is None:
        raise UnsupportedInputError(
            f"a tensor of {tensor.dtype}; the kernels take {', '.join(_TORCH_NAMES.values())}"
        )
    return code


def tensor_dtype(dtype: DType) -> torch.dtype:
    """Torch's name for a float dtype that merges."""
    import torch

    found: torch.dtype = getattr(torch, _TORCH_NAMES[dtype.name])
    return found


def words_of(tensor: Tensor) -> Tensor:
    """A float tensor's words as flat signed integers, without a copy.

    Raises:
        MismatchError: the tensor is not contiguous.
    """
    import torch

    if not tensor.is_contiguous():
        raise MismatchError("the kernels take contiguous tensors; call .contiguous() first")
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32}
    return tensor.detach().view(-1).view(integers[tensor.element_size()])


def check_entries(entries: int, **tensors: Tensor) -> None:
    """Check that every tensor has so many entries.

    Raises:
        MismatchError: one has not; names it.
    """
    for name, tensor in tensors.items():
        if tensor.numel() != entries:
            raise MismatchError(f"{name} has {tensor.numel()} entries where {entries} are expected")


def draw_arguments(retention: Retention) -> tuple[int, int, int, bool]:
    """A retention as device code takes it: seed, stream, threshold, and whether to draw at all."""
    seed, stream, threshold = (int(number.astype(np.int64)) for number in retention)
    drawn = threshold != KEEP_ALL
    return seed, stream, threshold if drawn else 0, drawn
