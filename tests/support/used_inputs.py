"""The digest of an input in a patch's provenance, from the entries that its build may use."""

from __future__ import annotations

import selection_oracle as oracle
from numpy.typing import NDArray
from tiny_checkpoints import raw

from patchc.hashing import chunk_digest, model_digest, tensor_digest


def used_digest(
    component: str, tensors: dict[str, NDArray], seed: int, retain: float, chunk_words: int
) -> str:
    """The digest of a tuned model or of scores, in hexadecimal."""
    pairs = []
    for name, values in tensors.items():
        flat = values.ravel().view(f"u{values.dtype.itemsize}")
        kept = oracle.retained(component, name, seed, retain, 0, flat.size)
        chunks = [
            chunk_digest(flat[first : first + chunk_words][kept[first : first + chunk_words]])
            for first in range(0, flat.size, chunk_words)
        ]
        pairs.append((name, tensor_digest(raw(values).dtype, values.shape, chunks)))
    return model_digest(pairs).hex()
