"""The additive patches of the specification's second example, made with today's writer."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from tiny_checkpoints import Raw, write_file

from patchc.dtypes import BY_NAME
from patchc.formats import ComponentEntries, PatchWriter, encode_deltas
from patchc.formats.container.layout import ADDITIVE
from patchc.hashing import chunk_digest, model_digest, tensor_digest

TENSORS: dict[str, tuple[str, tuple[int, ...], list[int]]] = {
    "a": ("BF16", (4,), [0x3F80, 0x0000, 0x8001, 0x4000]),
    "b": ("F32", (2,), [0x3F800000, 0x00000000]),
    "c": ("U8", (3,), [1, 2, 3]),
}
"""Name → dtype, shape, words of the base."""

RESULTS = {"a": [0x3F90, 0x0000, 0xBDA0, 0x3FFE], "b": [0x3F800000, 0xBC800000], "c": [1, 2, 3]}
"""Name → words after the bf16 patch with its stored scales; worked out by hand."""

Part = tuple[int, list[int], list[int], list[float]]
PARTS: dict[str, dict[str, list[Part]]] = {
    "bf16": {
        "a": [(0, [0, 2], [0x3C80, 0xBC00], []), (1, [2, 3], [0x3D00, 0x3D00], [])],
        "b": [(1, [1], [0x3D00], [])],
    },
    "int8": {
        "a": [(0, [0, 2], [127, -64], [0.015625]), (1, [2, 3], [127, 127], [0.03125])],
        "b": [(1, [1], [127], [0.03125])],
    },
}
"""Value type → name → component, positions, values as stored, absmax of the blocks."""


def metadata(value_type: str) -> dict[str, Any]:
    """The metadata of a file."""
    components = [
        {"name": "se", "scale": 8.0, "entries": 2},
        {"name": "osm", "scale": -0.5, "entries": 3},
    ]
    return {
        "additive": {"value_type": value_type, "components": components},
        "kind": "build",
        "tool": {"name": "patchc", "version": "0.1.0"},
    }


def additive_bytes(value_type: str) -> bytes:
    """The whole file."""
    file = io.BytesIO()
    writer = PatchWriter(file, chunk_words=1 << 12, features=ADDITIVE)
    model = []
    for name, (dtype_name, shape, words) in TENSORS.items():
        dtype = BY_NAME[dtype_name]
        digest = chunk_digest(np.array(words, dtype.word))
        parts = [
            ComponentEntries(
                component,
                np.array(positions, np.uint32),
                np.array(values, {"bf16": np.uint16, "int8": np.int8}[value_type]),
                np.array(absmax, np.float32),
            )
            for component, positions, values, absmax in PARTS[value_type].get(name, [])
        ]
        if parts:
            writer.add_chunk(encode_deltas(0, parts, len(words), digest))
        whole = tensor_digest(dtype_name, shape, [digest])
        writer.end_tensor(name, dtype, shape, whole)
        model.append((name, whole))
    writer.finish(metadata(value_type), model_digest(model), None)
    return file.getvalue()


def tensor(name: str, words: list[int]) -> Raw:
    """Words as a tensor of the example."""
    dtype, shape, _ = TENSORS[name]
    return Raw(dtype, shape, np.array(words, BY_NAME[dtype].word).tobytes())


def write_base(path: Path) -> Path:
    """The example's base, in one file."""
    return write_file(path, {name: tensor(name, words) for name, (*_, words) in TENSORS.items()})
