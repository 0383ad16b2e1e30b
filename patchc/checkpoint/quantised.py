"""Refuses quantised checkpoints where weights are computed with: their codes are not weights."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from patchc.checkpoint.checkpoint import Checkpoint
from patchc.checkpoint.quantised_layouts import find_quantised
from patchc.checkpoint.refuse import refuse_adapter
from patchc.errors import CheckpointError, UnsupportedInputError
from patchc.regular_file import read_regular
from patchc.strict_json import has_more_values, parse_json
from patchc.system_errors import reason

_MOST_CONFIG = 1 << 24
_MOST_VALUES = 1 << 18
_SHOWN = 80
_SHOWN_NAME = 160

_CONFIG = "config.json"
_KEYS = ("quantization_config", "compression_config")
_OWN_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
"""Of GPTQ, AWQ and ModelOpt; each states nothing but how the weights are quantised."""

_ADVICE = (
    "use the unquantised checkpoint. diff, apply and revert do take quantised checkpoints, as they "
    "are: quantise the outcome, and diff the quantised base and that"
)


def refuse_quantised(model: Checkpoint) -> None:
    """Refuse a quantised checkpoint or a LoRA adapter, for commands that compute with weights.

    The tensors decide, by their names, dtypes and shapes. Where they are plain, the model's
    configuration is asked as well, at every depth.

    Args:
        model: an open checkpoint.

    Raises:
        UnsupportedInputError: naming a tensor and its layout, or what the configuration states,
            and what to do.
        CheckpointError: a configuration cannot be read.
    """
    refuse_adapter(model.path, model.tensors)
    if found := _found(model):
        raise UnsupportedInputError(
            f"{found}, and codes and scales cannot be taken for weights; {_ADVICE}"
        )
    if stated := next(_statements(model.path if model.is_folder else model.path.parent), None):
        raise UnsupportedInputError(
            f"{model.path}: {stated} says that the weights are quantised, which is not supported "
            f"here; {_ADVICE}. If the weights are plain, remove that statement"
        )


def refuse_unstated(model: Checkpoint) -> None:
    """Refuse quantised tensors of a model whose configuration does not say how they are quantised.

    Loaders go by the configuration, and take codes for weights without it.

    Args:
        model: an open checkpoint, whose configuration states no method that the loader knows.

    Raises:
        UnsupportedInputError: naming a tensor and its layout, and what to do.
    """
    if found := _found(model):
        raise UnsupportedInputError(
            f"{found}, and {_CONFIG} states no method at its top that transformers knows, so "
            f"that codes would be loaded as weights; take the {_CONFIG} that came with these "
            "weights, or the unquantised checkpoint"
        )


def _found(model: Checkpoint) -> str | None:
    """Say where a checkpoint has a quantised tensor; None if it has none."""
    if not (found := find_quantised(model.tensors)):
        return None
    name, layout = found
    return f"{model.path}: tensor {name[:_SHOWN_NAME]!r} is quantised ({layout})"


def _statements(folder: Path) -> Iterator[str]:
    """Name the places in a folder's configuration that say how its weights are quantised."""
    for file in (folder / name for name in (_CONFIG, *_OWN_FILES)):
        if not os.path.lexists(file):
            continue
        content = _read(file)
        if file.name != _CONFIG:
            if _is_stated(content):
                yield f"{file.name}{_method(content)}"
            continue
        for key, value in _entries(content):
            if (key in _KEYS or _is_quantization(key, value)) and _is_stated(value):
                yield f"{key} in {file.name}{_method(value)}"


def _read(file: Path) -> Any:
    try:
        text = read_regular(file, _MOST_CONFIG)
        if has_more_values(text, _MOST_VALUES, _MOST_VALUES):
            raise ValueError(f"it has more than {_MOST_VALUES:,} values")
        return parse_json(text, any_number=True)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot read: {reason(error)}") from error
    except ValueError as error:
        raise CheckpointError(f"{file}: not readable JSON ({error})") from error


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """All entries of all objects, the outermost first."""
    waiting = deque([content])
    while waiting:
        value = waiting.popleft()
        if isinstance(value, dict):
            yield from value.items()
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _is_quantization(key: str, value: Any) -> bool:
    """Whether an entry is what MLX or ModelOpt write; others may mean codebooks by that word."""
    return (
        key == "quantization"
        and isinstance(value, dict)
        and bool({"bits", "quant_algo"} & {*value})
    )


def _is_stated(value: Any) -> bool:
    """Whether a statement is about weights; ModelOpt has a null where only the cache is meant."""
    inner = value.get("quantization", value) if isinstance(value, dict) else value
    if isinstance(inner, dict) and "quant_algo" in inner:
        return bool(inner["quant_algo"])
    return bool(inner)


def _method(value: Any) -> str:
    inner = value.get("quantization", value) if isinstance(value, dict) else value
    found = isinstance(inner, dict) and (inner.get("quant_method") or inner.get("quant_algo"))
    return f" ({str(found)[:_SHOWN]!r})" if found else ""
