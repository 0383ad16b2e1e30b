"""Safetensors files beside a model's own, such as draft heads, that belong to the same release."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from patchc.checkpoint.header import Shard, read_shard
from patchc.checkpoint.header_text import MOST_TENSORS
from patchc.checkpoint.loaded_files import safetensors_in
from patchc.checkpoint.weight_map import MOST_SHARDS
from patchc.errors import CheckpointError, UnsupportedInputError

_MOST_REASON = 160
_MOST_BESIDE = 256
_TOO_MANY = "too many files lie beside the model, or too many tensors are in them"

Accept = Callable[[Shard], str]
"""Says why a file beside the model is left aside; empty where it is taken."""


def take_all(_shard: Shard) -> str:
    """Take every file beside the model whose tensors are its own."""
    return ""


def find_beside(
    folder: Path, model: Sequence[Shard], accept: Accept
) -> tuple[list[Shard], dict[str, str]]:
    """Find the files in a model's folder that belong beside its own.

    Their tensors are in no other of the files. Subfolders are not looked into.

    Args:
        folder: the model's.
        model: its own files.
        accept: which of the others are wanted.

    Returns:
        The files, in name order, and why the others are left aside, by name.

    Raises:
        CheckpointError: the folder cannot be listed.
    """
    places = {tensor.name: shard.name for shard in model for tensor in shard.tensors}
    own, reasons = {shard.name for shard in model}, dict[str, str]()
    wanted: list[Shard] = []
    tensors = len(places)
    others = sorted(set(safetensors_in(folder)) - own)
    reasons |= dict.fromkeys(others[MOST_SHARDS:], _TOO_MANY)
    for name in others[:MOST_SHARDS]:
        shard, reasons[name] = _read(folder / name)
        if shard and not reasons[name]:
            reasons[name] = _clash(shard, places) or accept(shard)
        if shard and not reasons[name]:
            if len(wanted) == _MOST_BESIDE or tensors + len(shard.tensors) > MOST_TENSORS:
                reasons[name] = _TOO_MANY
            else:
                tensors += len(shard.tensors)
                wanted.append(shard)
    holders: dict[str, str] = {}
    for shard in wanted:
        for tensor in shard.tensors:
            first = holders.setdefault(tensor.name, shard.name)
            if first != shard.name:
                reasons[shard.name] = _holds(tensor.name, first)
                reasons[first] = reasons[first] or _holds(tensor.name, shard.name)
    return [shard for shard in wanted if not reasons[shard.name]], {
        name: reason for name, reason in reasons.items() if reason
    }


def _read(path: Path) -> tuple[Shard | None, str]:
    try:
        return read_shard(path), ""
    except (CheckpointError, UnsupportedInputError) as error:
        return None, str(error).removeprefix(f"{path}: ")[:_MOST_REASON]


def _clash(shard: Shard, places: dict[str, str]) -> str:
    for tensor in shard.tensors:
        if tensor.name in places:
            return _holds(tensor.name, places[tensor.name])
    return ""


def _holds(tensor: str, other: str) -> str:
    return f"it holds tensor {tensor[:80]!r}, as {other} does"
