"""Tensors that several files of one checkpoint hold, as shards do that were laid over others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint.header import Shard, TensorInfo
from patchc.errors import CheckpointError

MERGE = "merge the shards first, for example by loading the model and save_pretrained"
"""What to do about copies that stand in the way."""

_BLOCK = 1 << 20

ReadBytes = Callable[[str, int, NDArray[np.generic]], None]
"""Reads bytes of a shard from an offset on into an array."""


@dataclass(frozen=True)
class TensorCopies:
    """Which copy of each tensor counts.

    Attributes:
        taken: tensor name → the copy in the last shard, which transformers and vLLM load.
        shadowed: all others.
        indexed: the shadowed ones where the index places the tensor; equal to the taken ones once
            :meth:`check` has passed.
    """

    taken: dict[str, TensorInfo]
    shadowed: tuple[TensorInfo, ...]
    indexed: tuple[TensorInfo, ...]

    @classmethod
    def find(cls, shards: Iterable[Shard], weight_map: Mapping[str, str]) -> TensorCopies:
        """Find the copies in shards, which are in the order in which they are loaded."""
        taken: dict[str, TensorInfo] = {}
        shadowed: list[TensorInfo] = []
        for shard in shards:
            for tensor in shard.tensors:
                if tensor.name in taken:
                    shadowed.append(taken.pop(tensor.name))
                taken[tensor.name] = tensor
        indexed = (one for one in shadowed if weight_map.get(one.name) == one.shard)
        return cls(taken, tuple(shadowed), tuple(indexed))

    def check(self, path: object, read: ReadBytes) -> None:
        """Compare the copies that loaders take with those that the index takes.

        Raises:
            CheckpointError: two differ, so that it depends on the loader what the model is; or a
                file cannot be read.
        """
        for one in self.indexed:
            last = self.taken[one.name]
            if not same_bytes(one, read, last, read):
                raise CheckpointError(
                    f"{path}: tensor {one.name[:80]!r} is stored in {one.shard}, where the index "
                    f"places it, and with other values in {last.shard}, which is loaded after it; "
                    f"{MERGE}, or remove the copy that is not meant"
                )


def same_bytes(one: TensorInfo, read: ReadBytes, other: TensorInfo, read_other: ReadBytes) -> bool:
    """Whether two tensors have the same dtype, shape and bytes; compares in blocks."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    left, right = np.empty(_BLOCK, np.uint8), np.empty(_BLOCK, np.uint8)
    for first in range(0, one.nbytes, _BLOCK):
        count = min(_BLOCK, one.nbytes - first)
        read(one.shard, one.offset + first, left[:count])
        read_other(other.shard, other.offset + first, right[:count])
        if not np.array_equal(left[:count], right[:count]):
            return False
    return True
