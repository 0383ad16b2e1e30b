"""The index of a checkpoint in several shards: which file holds which tensor."""

from __future__ import annotations

import json
from pathlib import Path

from patchc.checkpoint.header import Shard, read_shard
from patchc.errors import CheckpointError
from patchc.regular_file import read_regular
from patchc.system_errors import reason


def read_indexed(index: Path) -> list[Shard]:
    """Read the headers of all shards that an index names, in name order.

    Raises:
        CheckpointError: the index or a shard is missing, unreadable or malformed, or a shard does
            not hold a tensor that the index places in it.
        UnsupportedInputError: a shard holds an unknown dtype.
    """
    weight_map = _read_weight_map(index)
    shards = [read_shard(index.parent / name) for name in sorted(set(weight_map.values()))]
    held = {(tensor.name, shard.name) for shard in shards for tensor in shard.tensors}
    for name, shard_name in weight_map.items():
        if (name, shard_name) not in held:
            raise CheckpointError(
                f"{index}: places tensor {name!r} in {shard_name}, which does not hold it"
            )
    return shards


def _read_weight_map(index: Path) -> dict[str, str]:
    try:
        content = json.loads(read_regular(index))
    except OSError as error:
        raise CheckpointError(f"{index}: cannot read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{index}: not readable JSON ({error})") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not all(
        isinstance(name, str) for name in weight_map.values()
    ):
        raise CheckpointError(f"{index}: has no weight_map from tensor names to file names")
    for name in weight_map.values():
        if name != Path(name).name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{index}: weight_map names {name!r}, which is no safetensors file of this folder"
            )
    return weight_map
