"""Writes a safetensors file tensor by tensor, so that only one is in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save
from torch import Tensor

from patchc.durability import sync
from patchc.system_errors import storage_errors

_ENTRY_BYTES = 512
"""More than an entry of the header takes beside the name: 64 dimensions, 2⁶³ elements."""


def write_tensors(
    path: Path,
    names: Iterable[str],
    load: Callable[[str], Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Write a new file.

    The header comes first and says where each tensor lies, which is known last; so its place is
    kept free, and what it does not need is filled with spaces.

    Args:
        path: the file.
        names: of the tensors, in the order of the file.
        load: gives a tensor by name; called once for each.
        metadata: texts for the header.

    Raises:
        StorageError: the operating system refused.
    """
    names = list(names)
    start = {"__metadata__": dict(metadata)}
    room = len(json.dumps(start)) + sum(_ENTRY_BYTES + len(json.dumps(name)) for name in names)
    room += -room % 8
    with storage_errors(path, "write"), path.open("xb") as file:
        file.seek(8 + room)
        header = start | _write_data(file, names, load)
        file.seek(0)
        file.write(room.to_bytes(8, "little") + json.dumps(header).encode().ljust(room))
        file.flush()
        sync(file.fileno())


def _write_data(
    file: BinaryIO, names: Iterable[str], load: Callable[[str], Tensor]
) -> dict[str, Any]:
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        tensor = load(name).detach().cpu().contiguous()
        if tensor.numel():  # an empty one may have strides that no view takes
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _dtype_name(tensor.dtype),
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    return header


@cache
def _dtype_name(dtype: torch.dtype) -> str:
    """The name that safetensors has for a dtype of torch."""
    file = save({"": torch.empty(0, dtype=dtype)})
    name: str = json.loads(file[8:])[""]["dtype"]
    return name
