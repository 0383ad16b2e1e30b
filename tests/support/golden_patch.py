"""The patch of the specification's worked example, made with today's writer."""

from __future__ import annotations

import io

import numpy as np

from patchc.dtypes import BY_NAME
from patchc.formats import PatchWriter, RetentionMask, encode_chunk
from patchc.hashing import chunk_digest, model_digest, tensor_digest

METADATA = {"kind": "diff", "tool": {"name": "patchc", "version": "0.1.0"}}

TENSORS: dict[str, tuple[str, tuple[int, ...], list[int], list[int]]] = {
    "a": ("BF16", (4,), [0x3F80, 0x0000, 0x8001, 0x4000], [0x3F81, 0x8000, 0x0001, 0x4000]),
    "b": ("F32", (2, 2), [0, 0, 0, 0x3F800000], [0, 0, 0, 0x3F7FFFFE]),
    "c": ("U8", (3,), [1, 2, 3], [1, 2, 3]),
    "cd": ("F16", (0,), [], []),
}
"""Name → dtype, shape, words of the base, words of the result."""

MASK = RetentionMask("se", seed=7, threshold=1288490189)
"""Keeps entries 0, 2 and 3 of tensor `a`; no body refers to it."""

CHANGES = {"a": ([0, 1, 2], [1, -1, 3]), "b": ([3], [-2])}
"""Name → positions, steps; worked out by hand."""


def golden_bytes() -> bytes:
    """The whole file."""
    file = io.BytesIO()
    writer = PatchWriter(file, chunk_words=1 << 12, masks=[MASK])
    models: tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]] = ([], [])
    for name, (dtype_name, shape, *sides) in TENSORS.items():
        dtype = BY_NAME[dtype_name]
        chunks = [[chunk_digest(np.array(words, dtype.word))] if words else [] for words in sides]
        if name in CHANGES:
            positions, steps = CHANGES[name]
            writer.add_chunk(
                encode_chunk(
                    0,
                    np.array(positions, np.uint32),
                    np.array(steps, np.int64),
                    len(sides[0]),
                    dtype,
                    chunks[0][0],
                    chunks[1][0],
                )
            )
        digests = [tensor_digest(dtype_name, shape, chunk) for chunk in chunks]
        writer.end_tensor(name, dtype, shape, digests[0])
        for model, digest in zip(models, digests, strict=True):
            model.append((name, digest))
    writer.finish(METADATA, model_digest(models[0]), model_digest(models[1]))
    return file.getvalue()
