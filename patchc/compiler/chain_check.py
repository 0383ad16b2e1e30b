"""Checks from their indexes alone that patches follow one another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from patchc.errors import MismatchError
from patchc.formats import Patch
from patchc.hashing import SHORT_DIGEST_BYTES

Numbers = NDArray[np.uint32]
Digests = NDArray[np.uint64]

_SHORT = np.dtype(f"<u{SHORT_DIGEST_BYTES}")


def changed_numbers(patches: Sequence[Patch], name: str) -> Numbers:
    """Numbers of the chunks of a tensor that any of the patches changes, increasing."""
    return np.unique(np.concatenate([_chunks(patch, name)[0] for patch in patches]))


def check_chain(patches: Sequence[Patch]) -> None:
    """Check that each patch begins where the one before it ends, tensor by tensor.

    Every digest that two patches share is compared: of models, of tensors and of chunks.

    Raises:
        MismatchError: naming the pair, and the first tensor that differs.
    """
    for before, after in pairwise(patches):
        _check_tensors(before, after)
    for name in patches[0].index.tensors:
        _check_chunks(patches, name)
    for before, after in pairwise(patches):
        if before.index.result_digest != after.index.base_digest:
            raise _apart(before, after, "the digests of the models differ")


def _check_tensors(before: Patch, after: Patch) -> None:
    if before.chunk_words != after.chunk_words:
        raise _apart(
            before, after,
            f"its grid has chunks of {after.chunk_words} words and the other's of "
            f"{before.chunk_words}; make both with the same chunk_bits",
        )  # fmt: skip
    for name, tensor in before.index.tensors.items():
        twin = after.index.tensors.get(name)
        if twin is None:
            raise _apart(before, after, f"it does not have tensor {name!r}")
        if (twin.dtype, twin.shape) != (tensor.dtype, tensor.shape):
            raise _apart(
                before, after,
                f"tensor {name!r} is {twin.dtype.name} {list(twin.shape)}, and "
                f"{tensor.dtype.name} {list(tensor.shape)} in the other",
            )  # fmt: skip
    for name in after.index.tensors:
        if name not in before.index.tensors:
            raise _apart(before, after, f"it has tensor {name!r}, which the other has not")


def _check_chunks(patches: Sequence[Patch], name: str) -> None:
    """Follow the digests of a tensor's chunks from patch to patch."""
    numbers, states = np.empty(0, np.uint32), np.empty(0, _SHORT)
    whole: bytes | None = None
    before = patches[0]
    for after in patches:
        record = after.index.tensors[name]
        if not len(numbers):
            if whole and record.digest not in (whole, None):
                raise _apart(before, after, f"tensor {name!r} has another digest")
            whole = record.digest
        changed, bases, results = _chunks(after, name)
        _, known, touched = np.intersect1d(
            numbers, changed, assume_unique=True, return_indices=True
        )
        apart = states[known] != bases[touched]
        if np.any(apart):
            number = int(changed[touched[apart][0]])
            raise _apart(before, after, f"tensor {name!r}, chunk {number} has another digest")
        others = ~np.isin(numbers, changed)
        numbers = np.concatenate((numbers[others], changed))
        states = np.concatenate((states[others], results))
        before = after


def _chunks(patch: Patch, name: str) -> tuple[Numbers, Digests, Digests]:
    """Numbers of a tensor's changed chunks, and their digests before and after."""
    index, places = patch.index, patch.index.tensors[name].chunks
    own = slice(places.start, places.stop)
    bases, results = (
        np.frombuffer(column, _SHORT)[own] for column in (index.base_digests, index.result_digests)
    )
    return index.numbers[own], bases, results


def _apart(before: Patch, after: Patch, difference: str) -> MismatchError:
    return MismatchError(
        f"{after.path} does not follow {before.path}: {difference}; name patches in the order in "
        "which they were made"
    )
