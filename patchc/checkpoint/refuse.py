"""Recognises formats that patchc does not read, and refuses them with advice."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from patchc.errors import CheckpointError, MissingCheckpointError, UnsupportedInputError
from patchc.regular_file import open_regular
from patchc.system_errors import reason

_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
_BELOW = ("*/model.safetensors*", "*/*/model.safetensors*")
"""Where a model lies whose outer folder is named, such as that of a hub's cache."""

_WEIGHT_SUFFIXES = (
    ".safetensors", ".index.json", ".gguf", ".onnx", ".onnx_data", ".h5", ".msgpack", ".pth",
    ".ckpt",
)  # fmt: skip
_PICKLED = ("pytorch_model", "adapter_model.bin")

COMPONENT_FILE = "component.json"
"""The file that makes a folder a compact component."""

COMPONENT_FORM = "patchc component"
"""The kind that this file states, and the "format" in the metadata of the files beside it."""

_COMPONENT = (
    "a compact component of `patchc derive`, which holds retained entries and is no model; name "
    "its folder as --se, --osm or --tuned of build, fit or sweep"
)
_GGUF = (
    "GGUF is not supported; load it with transformers (gguf_file=…) and save_pretrained to get a "
    "safetensors checkpoint"
)
_PICKLE = (
    "PyTorch pickle files are not supported (loading them can run code); convert the checkpoint to "
    "safetensors, for example by loading it with transformers and save_pretrained"
)
_ADAPTER = (
    "a LoRA adapter is not supported here; merge it into its model first (peft: merge_and_unload, "
    "then save_pretrained)"
)


def holds_weights(name: str) -> bool:
    """Tell from its name whether a file holds weights, or an index of such files."""
    name = name.lower()
    variant = ".safetensors.index." in name
    return variant or name.endswith(_WEIGHT_SUFFIXES) or name.startswith(_PICKLED)


def refuse_foreign_file(path: Path) -> None:
    """Refuse a file that is GGUF or a PyTorch pickle, by its content or suffix.

    Raises:
        UnsupportedInputError: naming the format and what to do.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {reason(error)}") from error
    if start.startswith(b"GGUF"):
        raise UnsupportedInputError(f"{path}: {_GGUF}")
    pickled = start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    pickled &= start[8:] != b"{"  # the length of a safetensors header may look like a pickle
    if pickled or path.suffix in _PICKLE_SUFFIXES:
        raise UnsupportedInputError(f"{path}: {_PICKLE}")


def refuse_foreign_folder(folder: Path) -> None:
    """Refuse a folder without a safetensors checkpoint, and say what it holds instead.

    Raises:
        UnsupportedInputError: it holds PyTorch pickles, GGUF or a LoRA adapter.
        CheckpointError: it cannot be listed, or holds no weights that patchc recognises.
    """
    try:
        files = sorted(path for path in folder.iterdir() if os.path.isfile(path))  # noqa: PTH113
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot list: {reason(error)}") from error
    if any(path.name == COMPONENT_FILE for path in files):
        raise UnsupportedInputError(f"{folder}: {_COMPONENT}")
    for path in files:
        if path.suffix == ".gguf":
            raise UnsupportedInputError(f"{path}: {_GGUF}")
        if path.name == "adapter_model.safetensors":
            raise UnsupportedInputError(f"{folder}: {_ADAPTER}")
    for path in files:
        if path.suffix in _PICKLE_SUFFIXES:
            raise UnsupportedInputError(f"{path}: {_PICKLE}")
    loose = [path.name for path in files if path.suffix == ".safetensors"]
    if loose:
        hint = f"it holds {loose[0]}: name that file to use it alone"
    elif below := min((p.parent for n in _BELOW for p in folder.glob(n)), default=None):
        hint = f"there is one in {below}: name that folder"
    else:
        hint = "name the folder that holds the weights"
    raise MissingCheckpointError(
        f"{folder}: no model.safetensors and no model.safetensors.index.json; {hint}",
        str(folder / "model.safetensors"),
    )


def refuse_component(path: Path, metadata: Mapping[str, str]) -> None:
    """Refuse a file of a compact component, by the metadata of its header.

    Raises:
        UnsupportedInputError: it is one.
    """
    if metadata.get("format") == COMPONENT_FORM:
        raise UnsupportedInputError(f"{path}: a part of {_COMPONENT}")


def refuse_single_file(path: Path, command: str) -> None:
    """Refuse a model that is given as one file, for commands that need its folder.

    Raises:
        UnsupportedInputError: the path is a file.
    """
    if os.path.isfile(path):  # noqa: PTH113 (Path.is_file raises where it may not look)
        raise UnsupportedInputError(
            f"{path}: {command} needs the model's folder, with its config and tokenizer, not one "
            "file"
        )


def refuse_adapter(path: Path, names: Iterable[str]) -> None:
    """Refuse a LoRA adapter, for commands that compute with weights.

    Args:
        path: a checkpoint's folder or file.
        names: its tensor names.

    Raises:
        UnsupportedInputError: it is one.
    """
    if any(".lora_A." in name or ".lora_B." in name for name in names):
        raise UnsupportedInputError(f"{path}: {_ADAPTER}")


def refuse_adapter_beside(folder: Path) -> None:
    """Refuse a folder with a LoRA adapter, for commands that run the model.

    Raises:
        UnsupportedInputError: transformers may add an adapter to the folder's model.
    """
    adapter = folder / "adapter_config.json"
    if adapter.exists():
        raise UnsupportedInputError(
            f"{adapter}: an adapter beside a model, which transformers may add to it; move it out "
            "of the folder, or merge it into the model"
        )
