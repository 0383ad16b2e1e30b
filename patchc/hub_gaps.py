"""What the hub's cache lacks of a model: files of a download that was cut off or was partial."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchc.hub_cache import Snapshot
from patchc.regular_file import read_regular
from patchc.strict_json import has_more_values, parse_json

UNUSED_SUFFIXES = (
    ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".gguf", ".onnx", ".onnx_data",
    ".tflite", ".ot", ".mlmodel", ".npz",
)  # fmt: skip
"""Weights in other formats than safetensors: patchc does not read them, nor fetch them."""

_SUFFIX = ".safetensors"
_INDEX, _SINGLE = f"model{_SUFFIX}.index.json", f"model{_SUFFIX}"
_MOST_BYTES = 1 << 26
_MOST_CONTAINERS = 1 << 17
_MOST_VALUES = 1 << 20
_MOST_NAMED = 3
_SHOWN = 80


@dataclass(frozen=True)
class Gaps:
    """What a snapshot lacks, in words; empty where it lacks nothing that is known of.

    Attributes:
        weights: without which the model is none.
        others: other files that the hub has.
    """

    weights: str = ""
    others: str = ""

    def __bool__(self) -> bool:
        return bool(self.weights or self.others)


def find_gaps(snapshot: Snapshot) -> Gaps:
    """Find what a snapshot lacks, by the model's index and by the hub's list of files.

    The list is beside the snapshot where ``snapshot_download`` wrote it. Without it, a snapshot
    without any weights lacks them: often, only a tokenizer was fetched. A list or an index that
    cannot be read tells nothing here; what reads the model says what is wrong with an index.
    """

    def lacking(names: Iterable[str]) -> list[str]:
        return [name for name in sorted(names) if not _is_file(snapshot.folder / name)]

    single = snapshot.folder / _SINGLE
    if os.path.islink(single) and not _is_file(single):  # noqa: PTH114 (Path.is_symlink raises)
        return Gaps(_SINGLE)
    index = None if _is_file(single) else snapshot.folder / _INDEX
    shards = lacking(_mapping(index, "weight_map", by_value=True)) if index else []
    listed = _mapping(snapshot.repository / "trees" / f"{snapshot.commit}.json", "files")
    files = lacking(name for name in listed if not name.endswith(UNUSED_SUFFIXES))
    if shards:
        return Gaps(_named(shards), "")
    if index and not _is_file(index):
        weights = [name for name in files if name in (_INDEX, _SINGLE)]
        if weights or not (listed or _holds_weights(snapshot.folder)):
            return Gaps(_named(weights or [f"its weights ({_SINGLE})"]))
    return Gaps("", _named(files))


def _holds_weights(folder: Path) -> bool:
    try:
        return any(path.name.endswith((_SUFFIX, *UNUSED_SUFFIXES)) for path in folder.iterdir())
    except OSError:  # what opens the model tells of it
        return True


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more files" if len(names) > _MOST_NAMED else ""
    return ", ".join(name[:_SHOWN] for name in names[:_MOST_NAMED]) + more


def _mapping(path: Path, key: str, by_value: bool = False) -> set[str]:
    """The names of files that a JSON file maps from, or to."""
    try:
        text = read_regular(path, _MOST_BYTES)
        if has_more_values(text, _MOST_CONTAINERS, _MOST_VALUES):
            return set()
        content: Any = parse_json(text)
    except (OSError, ValueError):
        return set()
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, dict):
        return set()
    return {name for name in (found.values() if by_value else found) if _is_inside(name)}


def _is_inside(name: object) -> bool:
    return isinstance(name, str) and "\0" not in name and not {"", ".."} & {*name.split("/")}


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 (Path.is_file raises where it may not look)
