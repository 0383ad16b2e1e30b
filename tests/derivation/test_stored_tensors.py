"""Tensors of a base are read from the files that were opened, whatever takes their place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from patchc.checkpoint import open_checkpoint
from patchc.derivation.base_model import load_stored


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn),
        *(torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.complex64),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
        *(torch.uint64, torch.uint32, torch.uint16),
    ],
)
def test_a_file_that_is_replaced_meanwhile_is_not_opened(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    """Another file took the place of the checked one; a pipe would have been waited for."""
    path = tmp_path / "model.safetensors"
    stored = {
        "w": torch.arange(12, dtype=torch.float32).view(3, 4).to(dtype),
        "one": torch.tensor(1, dtype=torch.float32).to(dtype),
        "none": torch.empty((0, 3), dtype=dtype),
    }
    save_file(stored, path)
    with open_checkpoint(path) as base:
        path.unlink()
        save_file({name: torch.zeros_like(value) for name, value in stored.items()}, path)
        for name, value in stored.items():
            found = load_stored(base, name)
            assert (found.dtype, found.shape) == (dtype, value.shape)
            assert found.view(-1).view(torch.uint8).tolist() == (
                value.view(-1).view(torch.uint8).tolist()
            )
