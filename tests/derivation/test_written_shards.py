"""Shards of derived models, on a disk that takes no more."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from patchc.checkpoint import open_checkpoint
from patchc.derivation.output import write_shards
from patchc.errors import StorageError


@contextmanager
def most_bytes(limit: int) -> Iterator[None]:
    """Files of this process may have so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write(folder: Path) -> None:
    write_shards(folder, "model", {"a": 40_000}, lambda _: torch.zeros(10_000), 1 << 20)


def test_a_shard_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    shard = tmp_path / "model.safetensors"
    with most_bytes(20_000), pytest.raises(StorageError, match=f"cannot write {shard}: .*this si"):
        write(tmp_path)


def test_tensors_of_every_kind_are_read_back_one_at_a_time(tmp_path: Path) -> None:
    tensors = {
        'a é"x': torch.randn(3, 5),
        "scalar": torch.tensor(3.5),
        "whole": torch.arange(7),
        "half": torch.ones(2, 3, dtype=torch.bfloat16),
        "empty": torch.empty(0, 4),
        "true": torch.tensor([True]),
        "turned": torch.randn(4, 6).t(),
    }
    asked: list[str] = []

    def load(name: str) -> torch.Tensor:
        asked.append(name)
        return tensors[name]

    sizes = {name: tensor.nbytes for name, tensor in tensors.items()}
    write_shards(tmp_path, "model", sizes, load, 1 << 20)
    assert asked == list(tensors)
    found = load_file(tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path) as opened:
        assert list(opened.tensors) == list(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
