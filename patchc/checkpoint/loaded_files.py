"""Which files of a folder are the model: those that transformers loads, by its rules.

In this order: the file or index that ``transformers_weights`` in config.json names; the single
file; the shards that the index names. Other loaders choose otherwise in some folders, which
:func:`rival` tells: vLLM prefers the layout of Mistral, then what the index names, and without an
index it reads every safetensors file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from patchc.checkpoint.header import read_shard
from patchc.checkpoint.refuse import refuse_foreign_folder
from patchc.checkpoint.weight_map import read_weight_map
from patchc.errors import (
    CheckpointError,
    MissingCheckpointError,
    UnsupportedInputError,
)
from patchc.escaping import shown
from patchc.other_kinds import START_BYTES, other_kind
from patchc.regular_file import is_possible, read_regular
from patchc.strict_json import has_more_values, parse_json
from patchc.system_errors import reason

MODEL = "model"
"""The stem of the names of a model's files."""

_SUFFIX, _INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"
_KEY = "transformers_weights"
_MOST_CONFIG = 1 << 24
_MOST_VALUES = 1 << 18
_MOST_RIVALS = 256
_DISTRIBUTED = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors")
_SHARD = re.compile(r".+-[0-9]{5}-of-[0-9]{5}\.safetensors")
_MISTRAL = re.compile(r"consolidated.*\.safetensors")


@dataclass(frozen=True)
class LoadedFiles:
    """The files of a model.

    Attributes:
        index: the name of the index that names them; None for a single file.
        names: the safetensors files in the order in which they are loaded, so that the last one
            counts of those that hold a tensor.
        weight_map: tensor name → the file where the index places it; empty without an index.
    """

    index: str | None
    names: tuple[str, ...]
    weight_map: Mapping[str, str] = field(default_factory=dict)


def find_loaded_files(folder: Path, stem: str = MODEL) -> LoadedFiles:
    """Find the files of the model in a folder; with another stem, those of what lies beside it.

    Raises:
        MissingCheckpointError: there are none, or one that is named is missing.
        CheckpointError: config.json or the index cannot be read, or names a file elsewhere.
        UnsupportedInputError: a loader would load something else, which patchc does not read:
            pickles, GGUF, an adapter's base, a distributed checkpoint.
    """
    single, index = stem + _SUFFIX, stem + _INDEX_SUFFIX
    named = None
    if stem == MODEL:
        named = _named_by_config(folder)
        _refuse_distributed(folder)
    chosen = named or next((name for name in (single, index) if _is_file(folder / name)), None)
    if chosen is None:
        found = [name for name in (single, index) if os.path.lexists(folder / name)]
        if not found:
            _refuse_lost_index(folder, index)
            refuse_foreign_folder(folder)
        chosen = found[0]  # a folder, or a link that leads nowhere: reading it tells
    _refuse_adapter_of_another(folder)
    if chosen == single and os.path.lexists(folder / index):
        with suppress(CheckpointError, UnsupportedInputError):
            weight_map = read_weight_map(folder / index)
            if set(weight_map.values()) == {single}:
                return LoadedFiles(index, (single,), weight_map)
    if not chosen.endswith(_INDEX_SUFFIX):
        return LoadedFiles(None, (chosen,))
    weight_map = read_weight_map(folder / chosen)
    if not weight_map:
        raise CheckpointError(
            f"{folder / chosen}: its weight_map is empty, so that no file is the model; fetch or "
            "write the index again"
        )
    return LoadedFiles(chosen, tuple(sorted(set(weight_map.values()))), weight_map)


def rival(folder: Path, files: LoadedFiles, taken: Iterable[str], tensors: Iterable[str]) -> str:
    """Say which files another loader takes instead of a model's; empty if none does.

    Args:
        folder: the model's.
        files: its files.
        taken: all safetensors files that belong to the checkpoint, ``files`` among them.
        tensors: names of the tensors in ``files``.
    """
    taken, own = set(taken), set(files.names)
    others = sorted(set(safetensors_in(folder)) - taken)
    mistral = [name for name in others if _MISTRAL.fullmatch(name)]
    if mistral:
        return f"{mistral[0]}, which vLLM prefers to {_some(own)}"
    index = MODEL + _INDEX_SUFFIX
    if os.path.lexists(folder / index):
        named: set[str] = set()
        with suppress(CheckpointError, UnsupportedInputError):
            named = set(read_weight_map(folder / index).values())
        return "" if named == own else f"{index}, by which vLLM loads {_some(named or {'nothing'})}"
    names = set(tensors)
    for name in others[:_MOST_RIVALS]:
        with suppress(CheckpointError, UnsupportedInputError):
            if any(tensor.name in names for tensor in read_shard(folder / name).tensors):
                return f"{name}, which holds the same tensors, and which vLLM loads too"
    return f"{len(others):,} other safetensors files" if len(others) > _MOST_RIVALS else ""


def safetensors_in(folder: Path) -> list[str]:
    """Names of the safetensors files in a folder, those that loaders see.

    Raises:
        CheckpointError: it cannot be listed.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 (names alone)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot list: {reason(error)}") from error
    return [name for name in names if name.endswith(_SUFFIX) and not name.startswith(".")]


def _some(names: Iterable[str]) -> str:
    first, *more = sorted(names)
    return f"{shown(first, 80)} and {len(more):,} more" if more else shown(first, 80)


def _is_file(path: Path) -> bool:
    """Whether loaders take a path for a file; an error of the system is not taken for a no."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CheckpointError(f"{path}: cannot open: {reason(error)}") from error
    return os.path.isfile(path)  # noqa: PTH113 (a link may lead nowhere, or in a circle)


def _named_by_config(folder: Path) -> str | None:
    """Read the name that config.json gives to the file or index of the weights, if it gives one.

    A malformed config.json names none, since nothing loads it.
    """
    config = folder / "config.json"
    if not os.path.lexists(config):
        return None
    try:
        text = read_regular(config, _MOST_CONFIG)
    except OSError as error:
        raise CheckpointError(f"{config}: cannot read: {reason(error)}") from error
    if text and (kind := other_kind(text[:START_BYTES])):
        raise CheckpointError(f"{config}: not readable JSON: it is {kind}")
    if _KEY.encode() not in text and b"\\u" not in text:
        return None
    try:
        if has_more_values(text, _MOST_VALUES, _MOST_VALUES):
            raise ValueError(f"it has more than {_MOST_VALUES:,} values")
        content = parse_json(text, any_number=True)
    except ValueError as error:
        if _KEY.encode() not in text:
            return None
        raise CheckpointError(
            f"{config}: not readable JSON ({error}), and it may name the model's files "
            f"({_KEY}); correct it"
        ) from error
    named = content.get(_KEY) if isinstance(content, dict) else None
    if named is None:
        return None
    return _checked_name(config, named)


def _checked_name(config: Path, named: object) -> str:
    says = f"{config}: {_KEY} names {shown(str(named), 80)!r}"
    if not isinstance(named, str) or not named.endswith((_SUFFIX, _INDEX_SUFFIX)):
        raise UnsupportedInputError(
            f"{says}, which is no safetensors file and no index of such files; name one, or remove "
            "the entry"
        )
    if not is_possible(named) or named != Path(named).name:
        raise CheckpointError(
            f"{says}, which is no file of this folder itself; move the weights there, and correct "
            "the entry"
        )
    path = config.parent / named
    if not _is_file(path):
        raise MissingCheckpointError(
            f"{says}, and there is no such file; fetch it, or correct the entry", str(path)
        )
    return named


def _refuse_adapter_of_another(folder: Path) -> None:
    """Refuse weights beside which lies an adapter that is loaded onto a base elsewhere."""
    adapter = folder / "adapter_config.json"
    if _is_file(adapter) and not os.path.lexists(folder / "config.json"):
        raise UnsupportedInputError(
            f"{adapter}: a LoRA adapter without a config.json beside it is loaded onto the base "
            "that it names, not onto the weights of this folder; merge it into its model first "
            "(peft: merge_and_unload, then save_pretrained), or remove it"
        )


def _refuse_distributed(folder: Path) -> None:
    """Refuse a distributed checkpoint, which transformers loads in place of anything else."""
    for name in safetensors_in(folder):
        if _DISTRIBUTED.fullmatch(name):
            raise UnsupportedInputError(
                f"{folder / name}: a part of a distributed checkpoint, which transformers loads "
                "before any other file of its folder; load it and save_pretrained to get whole "
                "safetensors files, or move these parts elsewhere"
            )


def _refuse_lost_index(folder: Path, index: str) -> None:
    shards = sorted(name for name in safetensors_in(folder) if _SHARD.fullmatch(name))
    if shards:
        raise MissingCheckpointError(
            f"{folder}: shards without their index ({_some(shards)}), which no loader takes; fetch "
            f"{index} too",
            str(folder / index),
        )
