"""The checkpoint reader: headers, the index of shards, and what lies beside them."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial

import numpy as np

from fuzzing.mutation import bundle, json_text, safetensors_file
from fuzzing.target import Target, expect, folder_of
from patchc.checkpoint import open_checkpoint, refuse_quantised
from patchc.checkpoint.header import size_by_header
from patchc.errors import CheckpointError, UnsupportedInputError
from patchc.selection.component_record import sample_digest

NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "config.json",
    "component.json",
)
_CHANGES = {".safetensors": safetensors_file.mutate, ".json": json_text.mutate}


def read(data: bytes) -> None:
    """Open a folder of a model, and read some words of each tensor."""
    files = bundle.unpack(data, NAMES)
    folder = folder_of(files)
    _read_headers(files)
    with open_checkpoint(folder) as model:
        expect(model.nbytes == sum(one.size for one in model.shards.values()), "bytes are lost")
        for tensor in model.tensors.values():
            end = tensor.offset + tensor.nbytes
            expect(end <= model.shards[tensor.shard].size, "a tensor ends after its file")
            words = np.empty(min(tensor.words, 64), tensor.dtype.word)
            model.read_words(tensor, 0, words)
        model.side_files()
        json.dumps([model.main_dtype, sample_digest(model)])
        with suppress(UnsupportedInputError):  # other commands take such a model
            refuse_quantised(model)


def _read_headers(files: dict[str, bytes]) -> None:
    """A header alone, as an update's patch holds it."""
    for name, content in files.items():
        if name.endswith(".safetensors"):
            size = int.from_bytes(content[:8], "little")
            try:
                expect(size_by_header(content[: 8 + size]) >= 0, "a size is below 0")
            except CheckpointError as refusal:
                expect(bool(str(refusal)), "no message")


TARGET = Target(
    "checkpoint",
    read,
    partial(bundle.mutate, names=NAMES, changes=_CHANGES),
    (
        "patchc.checkpoint.checkpoint",
        "patchc.checkpoint.header",
        "patchc.checkpoint.loaded_files",
        "patchc.checkpoint.tensor_copies",
        "patchc.checkpoint.weight_map",
        "patchc.checkpoint.quantised",
        "patchc.checkpoint.quantised_layouts",
        "patchc.checkpoint.refuse",
    ),
    executions=1200,
)
