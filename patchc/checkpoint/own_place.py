"""Refuses a run in place where the model's files are not the model's own, or not what loads.

A hub's cache shares its files between revisions and repositories: a link in a snapshot leads to a
blob, and since huggingface_hub 2 a blob may itself be a link into a store that all repositories
share. A write through such links would change every one of them, against the digest in its name.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from patchc.checkpoint.checkpoint import Checkpoint
from patchc.checkpoint.loaded_files import rival
from patchc.checkpoint.tensor_copies import MERGE
from patchc.errors import OutputError, UnsupportedInputError
from patchc.system_errors import storage_errors

_REPOSITORIES = ("models--", "datasets--", "spaces--")
_SHARED_STORE = ".huggingface-shared-blobs"
_COPY = "write a copy with -o"


def refuse_foreign_place(model: Checkpoint) -> None:
    """Refuse shards that are shared with others, and files that a loader takes instead of them.

    The model's folder itself may be a link or a mount.

    Raises:
        OutputError: a shard is outside the model's folder, in a hub's cache, or has hard links.
        UnsupportedInputError: loaders do not agree on which files of the folder are the model.
        CheckpointError: the folder cannot be listed.
        StorageError: the operating system refused.
    """
    for shard in model.shards.values():
        with storage_errors(shard.path, "look at"):
            real = shard.path.resolve(strict=True)
            folder = shard.path.parent.resolve()
            names = model.stat(shard.name).st_nlink
            cached = _is_cached(real) or _is_cached(folder / shard.name)
        if not real.is_relative_to(folder):
            raise OutputError(
                f"{shard.path} is a link to {real}, outside the model's folder, and a run in place "
                f"would change it for all who use it; {_COPY}"
            )
        if cached:
            raise OutputError(
                f"{real} belongs to a hub's cache, and a run in place would change it for all who "
                f"use that cache; {_COPY}"
            )
        if names > 1:
            raise OutputError(
                f"{shard.path} has {names} names (hard links), and a run in place would change "
                f"what the others show; {_COPY}"
            )
    if model.is_folder:
        _refuse_rivals(model)
    if model.copies.indexed:
        one = model.copies.indexed[0]
        raise UnsupportedInputError(
            f"{model.path}: tensor {one.name[:80]!r} is stored in {one.shard} too, where the index "
            f"places it, and a patch would change one copy alone; {MERGE}"
        )


def _refuse_rivals(model: Checkpoint) -> None:
    """Refuse a folder from which another loader takes other files than transformers does."""
    own = [model.shards[name] for name in model.files.names]
    tensors = {tensor.name for shard in own for tensor in shard.tensors}
    other = rival(model.path, model.files, model.shards, tensors)
    if other:
        raise UnsupportedInputError(
            f"{model.path}: the model is {model.files.names[0]} by the rules of transformers, and "
            f"beside it lies {other}, so that the patch would not show in every loader; remove or "
            f"rename what is not meant, or {_COPY}"
        )


def _is_cached(path: Path) -> bool:
    parents = list(path.parents)
    for inner, outer in pairwise(parents):
        if inner.name in ("blobs", "snapshots") and outer.name.startswith(_REPOSITORIES):
            return True
        if inner.name == "blobs" and _is_shared_store(inner):
            return True
    return False


def _is_shared_store(blobs: Path) -> bool:
    if any((place / _SHARED_STORE).exists() for place in (blobs, blobs.parent)):
        return True
    with suppress(OSError):
        return any(place.name.startswith(_REPOSITORIES) for place in blobs.parent.iterdir())
    return False
