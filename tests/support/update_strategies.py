"""Random pairs of tiny checkpoints, as releases that follow one another differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from tiny_checkpoints import Raw, file_bytes, write_index

from patchc.dtypes import BY_NAME

FLOATS = ("F32", "F16", "BF16", "F8_E4M3")
DTYPES = (*FLOATS, "I8", "F64", "BOOL")
SIDE_NAMES = (
    "generation_config.json",
    "tokenizer.json",
    "assets/chat.jinja",
    ".gitattributes",
    "a b.txt",
)


@dataclass(frozen=True)
class Side:
    """A checkpoint: shard name → tensors in file order, metadata, and the files beside them."""

    shards: Mapping[str, Mapping[str, Raw]]
    metadata: Mapping[str, str] | None
    files: Mapping[str, bytes]

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        for name, content in self.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        for name, tensors in self.shards.items():
            (folder / name).write_bytes(file_bytes(tensors, self.metadata))
        if list(self.shards) != ["model.safetensors"]:
            write_index(folder, {t: name for name, held in self.shards.items() for t in held})
        return folder


@st.composite
def tensors(draw: st.DrawFn, dtypes: tuple[str, ...] = DTYPES) -> Raw:
    """Random words in one of a few shapes; few different contents, so that twins come up."""
    dtype = BY_NAME[draw(st.sampled_from(dtypes))]
    rows = draw(st.sampled_from([0, 1, 3, 700, 1100]))
    shape = draw(st.sampled_from([(rows, 8), (rows,), (rows, 2, 2)]))
    seed = draw(st.integers(0, 3))
    return Raw(dtype.name, shape, _words(dtype.words(shape) * dtype.word_bytes, seed))


def _words(count: int, seed: int) -> bytes:
    return bytes(count) if seed == 3 else np.random.default_rng(seed).bytes(count)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Side, Side]:
    """A base, and a result that keeps, changes, renames, resizes, recasts, drops and adds."""
    base = draw(st.dictionaries(st.sampled_from("abcdefgh"), tensors(), max_size=5))
    result: dict[str, Raw] = {}
    for name, tensor in base.items():
        fate = draw(st.sampled_from(["keep", "nudge", "drop", "rename", "resize", "recast", "new"]))
        if fate == "rename":
            result[name + draw(st.sampled_from(["x", "y"]))] = tensor
        elif fate != "drop":
            result[name] = draw(_changed(tensor, fate))
    result |= draw(st.dictionaries(st.sampled_from("stuv"), tensors(), max_size=2))
    contents = st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"{}", b"x" * 3000]))
    files = draw(st.dictionaries(st.sampled_from(SIDE_NAMES), contents, max_size=4))
    other = files | draw(st.dictionaries(st.sampled_from(SIDE_NAMES), contents, max_size=2))
    for name in draw(st.sets(st.sampled_from(SIDE_NAMES), max_size=2)):
        other.pop(name, None)
    metadata = st.sampled_from([None, {"format": "pt"}, {"format": "pt", "step": "2"}])
    first, second = draw(_layout(base)), draw(_layout(result))
    return Side(first, draw(metadata), files), Side(second, draw(metadata), other)


@st.composite
def _changed(draw: st.DrawFn, tensor: Raw, fate: str) -> Raw:
    dtype = BY_NAME[tensor.dtype]
    if fate == "nudge":
        words = np.frombuffer(tensor.data, np.uint8).copy()
        words[draw(st.integers(0, 20)) :: 37] ^= 1
        return Raw(tensor.dtype, tensor.shape, words.tobytes())
    if fate == "resize":
        shape = (draw(st.sampled_from([0, 2, 900, 1500])), *tensor.shape[1:])
        count = dtype.words(shape) * dtype.word_bytes
        tail = _words(count, draw(st.integers(2, 3)))
        return Raw(tensor.dtype, shape, tensor.data[:count] + tail[len(tensor.data) :])
    if fate == "recast" and tensor.dtype in FLOATS:
        other = draw(st.sampled_from(FLOATS))
        size = BY_NAME[other].word_bytes * dtype.words(tensor.shape)
        return Raw(other, tensor.shape, _words(size, draw(st.integers(0, 3))))
    return draw(tensors()) if fate == "new" else tensor


@st.composite
def _layout(draw: st.DrawFn, held: Mapping[str, Raw]) -> dict[str, dict[str, Raw]]:
    order = draw(st.permutations(list(held)))
    count = draw(st.sampled_from([1, 1, 2, 3]))
    if count == 1:
        return {"model.safetensors": {name: held[name] for name in order}}
    names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    places = {name: draw(st.sampled_from(names)) for name in order}
    shards = {
        shard: {name: held[name] for name in order if places[name] == shard} for shard in names
    }
    return {name: tensors for name, tensors in shards.items() if tensors} or {
        "model.safetensors": {}
    }
