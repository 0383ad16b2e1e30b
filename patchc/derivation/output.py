"""Writes the folder of a derived model: weights and scores in fp32, side files, and the record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from patchc.checkpoint import Checkpoint
from patchc.derivation.derive_options import DeriveOptions
from patchc.derivation.tensor_file import write_tensors
from patchc.durability import sync_path
from patchc.errors import CheckpointError
from patchc.escaping import visible_json
from patchc.files import copy_file
from patchc.recipe.safepatching import Score
from patchc.regular_file import read_regular
from patchc.selection.component_record import RECORD
from patchc.selection.safepatching.inputs import scores_stem
from patchc.strict_json import parse_json
from patchc.system_errors import storage_errors

_MOST_BYTES = 4 << 20
"""Bytes of a model's configuration."""


def write_whole(
    folder: Path,
    base: Checkpoint,
    scored: Iterable[str],
    options: DeriveOptions,
    value: Callable[[str], Tensor],
    score: Callable[[Score, str], Tensor],
) -> None:
    """Write a whole tuned model with its side files, and whole scores beside it.

    Args:
        folder: an existing folder.
        base: the model that was tuned.
        scored: names of the tensors that have scores.
        options: those of the derivation.
        value: gives a tuned tensor by name; called once for each.
        score: gives a tensor's scores of a kind; called once for each.

    Raises:
        StorageError: the operating system refused.
    """
    copy_side_files(base, folder)
    sizes = {name: 4 * info.words for name, info in base.tensors.items()}
    write_shards(folder, "model", sizes, value, options.shard_bytes)
    sizes = {name: 4 * base.tensors[name].words for name in scored}
    for kind in options.scores:
        write_shards(folder, scores_stem(kind), sizes, partial(score, kind), options.shard_bytes)


def write_shards(
    folder: Path,
    stem: str,
    sizes: Mapping[str, int],
    load: Callable[[str], Tensor],
    shard_bytes: int,
    form: str = "pt",
) -> None:
    """Write tensors as ``{stem}.safetensors``, or as shards with an index if they need several.

    Args:
        folder: an existing folder.
        stem: start of the file names.
        sizes: the names in writing order, with an upper bound of each tensor's bytes.
        load: gives a tensor by name; called once for each, and only one is held at a time.
        shard_bytes: most bytes in one file; a larger tensor has a file of its own.
        form: the "format" that the files' metadata state.

    Raises:
        StorageError: the operating system refused.
    """
    shards = _plan_shards(sizes, shard_bytes)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        several = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        path = folder / f"{stem}{several}.safetensors"
        write_tensors(path, names, load, {"format": form})
        weight_map |= dict.fromkeys(names, path.name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        write_json(folder / f"{stem}.safetensors.index.json", index)


def copy_side_files(base: Checkpoint, folder: Path) -> None:
    """Copy config, tokenizer and chat template.

    The config states that the weights are fp32, and names no files of weights, as the base's may.
    """
    for relative in base.side_files()[0]:
        if relative == Path(RECORD) or base.path / relative == base.index:
            continue
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        if relative == Path("config.json"):
            config = _read_config(base.path / relative)
            config.pop("torch_dtype", None)
            config.pop("transformers_weights", None)
            write_json(target, {**config, "dtype": "float32"})
        else:
            copy_file(base.path / relative, target)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        with storage_errors(path, "read"):
            config = parse_json(read_regular(path, _MOST_BYTES), any_number=True)
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return config


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON, and make it durable."""
    text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True)
    path.write_text(visible_json(text) + "\n", encoding="utf-8")
    sync_path(path)


def _plan_shards(sizes: Mapping[str, int], shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = []
    used = 0
    for name, size in sizes.items():
        if not shards or used + size > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    return shards
