"""The patch of the specification's worked example of retention masks, made with today's writer."""

from __future__ import annotations

import io

import numpy as np

from patchc.dtypes import BY_NAME
from patchc.formats import PatchWriter, RetentionMask, TensorMasks, encode_chunk
from patchc.hashing import chunk_digest, model_digest, tensor_digest

METADATA = {"kind": "build", "tool": {"name": "patchc", "version": "0.1.0"}}

MASKS = tuple(RetentionMask(f"model-{i}", seed=7, threshold=1 << 30) for i in range(3))
"""Each keeps a quarter of the entries."""

ROWS = {"a": 0b101, "b": 0b111, "c": 0}
"""Tensor → the masks of its only chunk: two, all three, and none."""

GROUPS = {
    "a": "0000100032003010002101000000120201000001000000122010101010002031101032023100103022001001",
    "b": "1221012101121101021001011221001111100012101100002100000000103000101120101002000102020120",
    "c": "1" + 87 * "0",
}
"""Group of each word: bits for two masks, a count for three; of `c`, which words change."""

BASE = {name: [0x3F80] * 88 for name in ROWS}
"""Name → BF16 words of the base."""


def changes(name: str) -> dict[int, int]:
    """Position → step: every word outside group 0 moves by the number of its group."""
    return {at: int(group) for at, group in enumerate(GROUPS[name]) if group != "0"}


def result(name: str) -> list[int]:
    """Words of the result."""
    return [word + changes(name).get(at, 0) for at, word in enumerate(BASE[name])]


def golden_bytes() -> bytes:
    """The whole file."""
    file = io.BytesIO()
    writer = PatchWriter(file, chunk_words=1 << 12, masks=MASKS)
    masks = TensorMasks(MASKS, ROWS)
    models: tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]] = ([], [])
    dtype = BY_NAME["BF16"]
    for name in ROWS:
        sides = [np.array(words, dtype.word) for words in (BASE[name], result(name))]
        digests = [chunk_digest(words) for words in sides]
        found = changes(name)
        writer.add_chunk(
            encode_chunk(
                0,
                np.array(list(found), np.uint32),
                np.array(list(found.values()), np.int64),
                len(sides[0]),
                dtype,
                *digests,
                sides[0],
                ROWS[name],
                masks.draw(name, 0, len(sides[0])),
            )
        )
        whole = [tensor_digest("BF16", (88,), [digest]) for digest in digests]
        writer.end_tensor(name, dtype, (88,), whole[0])
        for model, digest in zip(models, whole, strict=True):
            model.append((name, digest))
    writer.finish(METADATA, model_digest(models[0]), model_digest(models[1]))
    return file.getvalue()
