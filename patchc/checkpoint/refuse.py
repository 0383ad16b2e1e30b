"""Inputs that are recognised and refused by name, with what to do instead."""

from __future__ import annotations

import json
from pathlib import Path

from patchc.errors import CheckpointError, UnsupportedInputError

_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
_WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".onnx", ".h5", ".msgpack", ".pth", ".ckpt")

_QUANTISED_SUFFIXES = {
    ".qweight": "GPTQ or AWQ",
    ".qzeros": "GPTQ or AWQ",
    ".absmax": "bitsandbytes",
    ".quant_map": "bitsandbytes",
    ".SCB": "bitsandbytes",
}


def holds_weights(name: str) -> bool:
    """Whether a file of this name beside a checkpoint holds weights, or an index of such files."""
    index = name.endswith(".index.json")
    return index or name.endswith(_WEIGHT_SUFFIXES) or name.startswith("pytorch_model")


def refuse_foreign_file(path: Path) -> None:
    """Refuse a file that is GGUF or a PyTorch pickle, by content or ending.

    Raises:
        UnsupportedInputError: naming the format and what to do.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {error.strerror}") from error
    if start == b"GGUF":
        raise _gguf(path)
    pickled = start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    if pickled or path.suffix in _PICKLE_SUFFIXES:
        raise _pickle(path)


def refuse_foreign_folder(folder: Path) -> None:
    """Say what a folder without a safetensors checkpoint holds instead.

    Raises:
        UnsupportedInputError: it holds PyTorch pickles, GGUF or a LoRA adapter.
        CheckpointError: it holds no weights that patchc recognises.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for path in files:
        if path.suffix == ".gguf":
            raise _gguf(path)
        if path.name == "adapter_model.safetensors":
            raise _adapter(folder)
    for path in files:
        if path.suffix in _PICKLE_SUFFIXES:
            raise _pickle(path)
    loose = [path.name for path in files if path.suffix == ".safetensors"]
    hint = f"; it holds {loose[0]}: name that file to use it alone" if loose else ""
    raise CheckpointError(
        f"{folder}: no model.safetensors and no model.safetensors.index.json{hint}"
    )


def refuse_quantised(path: Path, names: tuple[str, ...] | None = None) -> None:
    """Refuse a quantised base or a LoRA adapter, for commands that compute with weights.

    Args:
        path: a checkpoint's folder or file.
        names: its tensor names, where they are at hand.

    Raises:
        UnsupportedInputError: naming the kind and what to do.
    """
    folder = path if path.is_dir() else path.parent
    if (path.is_dir() and (path / "adapter_config.json").exists()) or any(
        ".lora_A." in name or ".lora_B." in name for name in names or ()
    ):
        raise _adapter(path)
    config = folder / "config.json"
    if config.exists():
        try:
            content = json.loads(config.read_bytes())
        except (ValueError, OSError, RecursionError) as error:
            raise CheckpointError(f"{config}: not readable JSON ({error})") from error
        quantised = content.get("quantization_config") if isinstance(content, dict) else None
        if quantised:
            method = quantised.get("quant_method") if isinstance(quantised, dict) else None
            raise _quantised(path, str(method or "a quantisation_config in config.json"))
    for name in names or ():
        for suffix, method in _QUANTISED_SUFFIXES.items():
            if name.endswith(suffix):
                raise _quantised(path, f"{method}: tensor {name!r}")


def _gguf(path: Path) -> UnsupportedInputError:
    return UnsupportedInputError(
        f"{path}: GGUF is not supported; load it with transformers (gguf_file=…) and "
        "save_pretrained to get a safetensors checkpoint"
    )


def _pickle(path: Path) -> UnsupportedInputError:
    return UnsupportedInputError(
        f"{path}: PyTorch pickle files are not supported (loading them can run code); convert the "
        "checkpoint to safetensors, for example by loading it with transformers and save_pretrained"
    )


def _adapter(path: Path) -> UnsupportedInputError:
    return UnsupportedInputError(
        f"{path}: a LoRA adapter is not supported here; merge it into its model first "
        "(peft: merge_and_unload, then save_pretrained)"
    )


def _quantised(path: Path, kind: str) -> UnsupportedInputError:
    return UnsupportedInputError(
        f"{path}: quantised weights ({kind}) are not supported here; use the unquantised "
        "checkpoint. diff, apply and revert do take quantised checkpoints"
    )
