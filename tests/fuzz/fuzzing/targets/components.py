"""The records beside derived weights: component.json and derive.json."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path

from fuzzing.mutation import bundle, json_text
from fuzzing.target import Target, folder_of, scratch
from patchc.checkpoint import open_checkpoint
from patchc.errors import PatchcError
from patchc.selection.compact.description import read_description
from patchc.selection.component_record import read_records, sample_digest

NAMES = ("component.json", "derive.json")


@cache
def base() -> Path:
    """A base with one small tensor."""
    header = b'{"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}   '
    path = scratch() / "base.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\1\2")
    return path


def base_sample() -> str:
    """The base's digest, as records have it."""
    with open_checkpoint(base()) as model:
        return sample_digest(model)


def read(data: bytes) -> None:
    """Read what a folder says about its component."""
    folder = folder_of(bundle.unpack(data, NAMES))
    refused: PatchcError | None = None
    try:
        described = read_description(folder)
        json.dumps(described.to_json(), allow_nan=False)
    except PatchcError as error:
        refused = error
    with open_checkpoint(base()) as model:
        read_records(model, [("se", folder)])
    if refused:
        raise refused


TARGET = Target(
    "components",
    read,
    partial(bundle.mutate, names=NAMES, changes={".json": json_text.mutate}),
    ("patchc.selection.compact.description", "patchc.selection.component_record"),
    executions=1500,
)
