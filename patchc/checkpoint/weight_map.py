"""The index of a checkpoint in several shards: which file holds which tensor."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from patchc.checkpoint.header import Shard, read_shard
from patchc.checkpoint.header_text import MOST_TENSORS
from patchc.errors import CheckpointError, UnsupportedInputError
from patchc.regular_file import read_regular
from patchc.strict_json import has_more_values, parse_json
from patchc.system_errors import reason

MOST_SHARDS = 4096
_MOST_BYTES = 1 << 26
_MOST_CONTAINERS = 1 << 16


def read_indexed(index: Path) -> list[Shard]:
    """Read the headers of all shards that an index names, in name order.

    Raises:
        CheckpointError: the index or a shard is missing, unreadable or malformed, or a shard does
            not hold a tensor that the index places in it.
        UnsupportedInputError: an unknown dtype, too many tensors or too many shards.
    """
    weight_map = _read_weight_map(index)
    shards = _read_shards(index, sorted(set(weight_map.values())))
    held = {(tensor.name, shard.name) for shard in shards for tensor in shard.tensors}
    for name, shard_name in weight_map.items():
        if (name, shard_name) not in held:
            raise CheckpointError(
                f"{index}: places tensor {name[:80]!r} in {shard_name}, which does not hold it"
            )
    return shards


def _read_shards(index: Path, names: Iterable[str]) -> list[Shard]:
    shards, tensors = [], 0
    for name in names:
        shards.append(read_shard(index.parent / name))
        tensors += len(shards[-1].tensors)
        if tensors > MOST_TENSORS:
            raise UnsupportedInputError(
                f"{index}: its shards hold more than {MOST_TENSORS:,} tensors, the most that a "
                "model may have here"
            )
    return shards


def _read_weight_map(index: Path) -> dict[str, str]:
    try:
        text = read_regular(index, _MOST_BYTES)
    except OSError as error:
        raise CheckpointError(f"{index}: cannot read: {reason(error)}") from error
    if has_more_values(text, _MOST_CONTAINERS, 2 * MOST_TENSORS):
        raise CheckpointError(
            f"{index}: not readable JSON (more entries than the {MOST_TENSORS:,} tensors that a "
            "model may have here)"
        )
    try:
        content = parse_json(text)
    except ValueError as error:
        raise CheckpointError(f"{index}: not readable JSON ({error})") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not all(
        isinstance(name, str) for name in weight_map.values()
    ):
        raise CheckpointError(f"{index}: has no weight_map from tensor names to file names")
    names = set(weight_map.values())
    if len(names) > MOST_SHARDS:
        raise UnsupportedInputError(
            f"{index}: names {len(names):,} shards, and {MOST_SHARDS:,} are the most"
        )
    for name in sorted(names):
        if "\0" in name or name != Path(name).name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{index}: weight_map names {name[:80]!r}, which is no safetensors file of this "
                "folder"
            )
    return weight_map
