"""Whether a patch between two models leaves the copies of tensors alone that do not count."""

from __future__ import annotations

from patchc.checkpoint import Checkpoint
from patchc.checkpoint.tensor_copies import MERGE, same_bytes
from patchc.errors import UnsupportedInputError


def refuse_other_copies(base: Checkpoint, tuned: Checkpoint) -> None:
    """Refuse models with copies of tensors that a patched copy would not give back.

    Such copies are in overlay shards. A patch holds one tensor of a name, and its receivers copy
    the others as they are: they have to be equal on both sides, in files with equal headers.

    Raises:
        UnsupportedInputError: naming a tensor and its files.
        CheckpointError: a file cannot be read.
    """
    for model in (base, tuned):
        if model.copies.indexed:
            one = model.copies.indexed[0]
            raise UnsupportedInputError(
                f"{model.path}: tensor {one.name[:80]!r} is stored in {one.shard}, where the index "
                f"places it, and in {model.copies.taken[one.name].shard}, which is loaded after "
                f"it; {MERGE}, or give --weights-only"
            )
    twins = {(one.name, one.shard): one for one in tuned.copies.shadowed}
    shadowed = {(one.name, one.shard): one for one in base.copies.shadowed}
    if not twins and not shadowed:
        return
    name, shard = next(iter([*shadowed, *twins]))
    equal = (
        shadowed.keys() == twins.keys()
        and _headers(base) == _headers(tuned)
        and all(
            same_bytes(one, base.read_bytes, twins[key], tuned.read_bytes)
            for key, one in shadowed.items()
        )
    )
    if not equal:
        raise UnsupportedInputError(
            f"tensor {name[:80]!r} is stored in several files of {base.path} or {tuned.path}, "
            f"{shard} among them, and these files differ in more than the copies that count; "
            f"{MERGE}, or give --weights-only"
        )


def _headers(model: Checkpoint) -> dict[str, bytes]:
    return {name: model.read_header(name) for name in model.shards}
