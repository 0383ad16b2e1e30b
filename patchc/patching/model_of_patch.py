"""Opens the model that a patch is for: the files that loaders take, and those beside them.

A patch made from two releases may cover safetensors files beside the model's own, such as a draft
head. Its index lists tensors and not their files; so a file beside the model belongs to it if the
index lists all of its tensors.
"""

from __future__ import annotations

from patchc.checkpoint import Checkpoint, Shard, open_checkpoint
from patchc.escaping import shown
from patchc.formats import Patch
from patchc.paths import PathLike

BESIDE = "beside"
"""The key in a patch's metadata for the names of the files beside the model that it covers."""

_SHOWN = 80


def open_for_patch(path: PathLike, patch: Patch) -> Checkpoint:
    """Open a model with the files beside it that a patch covers.

    Raises:
        CheckpointError, InUseError, UnsupportedInputError: as :func:`open_checkpoint`.
    """
    listed = {record.name for record in patch.index.records}

    def accept(shard: Shard) -> str:
        other = next((one.name for one in shard.tensors if one.name not in listed), None)
        return "" if other is None else f"the patch does not cover its tensor {other[:_SHOWN]!r}"

    return open_checkpoint(path, beside=accept)


def names_beside(patch: Patch) -> list[str]:
    """Names of the files beside the model that a patch covers, as its maker saw them."""
    names = patch.metadata.get(BESIDE)
    return [one for one in names if isinstance(one, str)] if isinstance(names, list) else []


def missing_beside(patch: Patch, model: Checkpoint) -> str | None:
    """Say which file beside the model the patch covers and the model lacks; None if there is none.

    For a message about a tensor that is missing.
    """
    for name in names_beside(patch):
        if name not in model.shards:
            reasons = {one.name: one.reason for one in model.left_aside}
            why = f"was left aside here: {reasons[name]}" if name in reasons else "is missing here"
            return f"{shown(name, _SHOWN)}, which lay beside the patch's models, {why}"
    return None
