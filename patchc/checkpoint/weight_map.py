"""The index of a checkpoint in several shards: which file holds which tensor."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from patchc.checkpoint.header import Shard, read_shard
from patchc.checkpoint.header_text import MOST_TENSORS
from patchc.errors import CheckpointError, UnsupportedInputError
from patchc.other_kinds import START_BYTES, other_kind
from patchc.regular_file import read_regular
from patchc.strict_json import has_more_values, parse_json
from patchc.system_errors import reason

MOST_SHARDS = 4096
_MOST_BYTES = 1 << 26
_LONGEST_NAME = 255
_MOST_CONTAINERS = 1 << 16


def read_shards(folder: Path, names: Iterable[str]) -> list[Shard]:
    """Read the headers of safetensors files of a folder, in the order given.

    Raises:
        CheckpointError: a file is missing, unreadable or malformed.
        UnsupportedInputError: an unknown dtype, or too many tensors.
    """
    shards, tensors = [], 0
    for name in names:
        shards.append(read_shard(folder / name))
        tensors += len(shards[-1].tensors)
        if tensors > MOST_TENSORS:
            raise UnsupportedInputError(
                f"{folder}: its shards hold more than {MOST_TENSORS:,} tensors, the most that a "
                "model may have here"
            )
    return shards


def read_weight_map(index: Path) -> dict[str, str]:
    """Read which file of its folder an index names for each tensor.

    Raises:
        CheckpointError: it is unreadable or malformed, or names something else than safetensors
            files of its folder.
        UnsupportedInputError: too many shards.
    """
    try:
        text = read_regular(index, _MOST_BYTES)
    except OSError as error:
        raise CheckpointError(f"{index}: cannot read: {reason(error)}") from error
    kind = other_kind(text[:START_BYTES])
    if kind:
        raise CheckpointError(f"{index}: not readable JSON: it is {kind}")
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
        is_name = "\0" not in name and name == Path(name).name and len(name) <= _LONGEST_NAME
        if not is_name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{index}: weight_map names {name[:80]!r}, which is no safetensors file of this "
                "folder"
            )
    return weight_map
