"""Loaded models as state dicts on the CPU, and the patches that change them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from tiny_checkpoints import Tensors, read_model, write_model

import patchc

TORCH = {
    np.dtype(ml_dtypes.bfloat16): torch.bfloat16,
    np.dtype(ml_dtypes.float8_e4m3fn): torch.float8_e4m3fn,
    np.dtype(ml_dtypes.float8_e5m2): torch.float8_e5m2,
}
State = dict[str, Any]


def to_torch(array: NDArray) -> Any:
    """A tensor with an array's bits, in memory of its own."""
    own = array.copy()
    if array.dtype in TORCH:
        return torch.from_numpy(own.view(f"i{own.itemsize}")).view(TORCH[array.dtype])
    return torch.from_numpy(own)


def state_of(tensors: Tensors) -> State:
    """A state dict with a checkpoint's bits."""
    return {name: to_torch(np.asarray(value)) for name, value in tensors.items()}


def bits(state: Mapping[str, Any]) -> dict[str, bytes]:
    """The memory of every tensor."""
    return {
        name: tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes()
        for name, tensor in state.items()
    }


def stored(folder: Path) -> dict[str, bytes]:
    """The bytes of every tensor of a checkpoint."""
    return {name: tensor.data for name, tensor in read_model(folder).items()}


@dataclass(frozen=True)
class Update:
    """Two checkpoints, the patch between them, and their arrays."""

    base: Path
    tuned: Path
    patch: Path
    before: Mapping[str, NDArray]
    after: Mapping[str, NDArray]


def make_update(
    root: Path, before: Tensors, after: Tensors, codec: str = "auto", chunk_bits: int = 12
) -> Update:
    base, tuned = (write_model(root / n, t) for n, t in (("base", before), ("tuned", after)))
    patch = root / "update.patchc"
    patchc.diff(base, tuned, out=patch, chunk_bits=chunk_bits, codec=codec)
    return Update(base, tuned, patch, dict(before), dict(after))
