"""Writes the folder of a derived model: weights and scores in fp32, side files, and the record."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from patchc.checkpoint import Checkpoint
from patchc.durability import set_mode, sync_path
from patchc.files import copy_file
from patchc.system_errors import storage_error

RECORD = "derive.json"


def write_shards(
    folder: Path,
    stem: str,
    sizes: Mapping[str, int],
    load: Callable[[str], Tensor],
    shard_bytes: int,
) -> None:
    """Write tensors as ``{stem}.safetensors``, or as shards with an index if they need several.

    Args:
        folder: an existing folder.
        stem: start of the file names.
        sizes: the names in writing order, with an upper bound of each tensor's bytes.
        load: gives a tensor by name; called when the tensor's shard is written.
        shard_bytes: most bytes in one file; a larger tensor has a file of its own.
    """
    shards = _plan_shards(sizes, shard_bytes)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        several = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        path = folder / f"{stem}{several}.safetensors"
        content = {name: load(name).detach().cpu().clone().contiguous() for name in names}
        try:
            save_file(content, path, metadata={"format": "pt"})
        except SafetensorError as error:
            code = re.search(r"\(os error (\d+)\)", str(error))
            refused = OSError(int(code[1]) if code else 0, str(error))
            raise storage_error(refused, path, "write") from error
        # safetensors makes its files private; these get what the umask gave the folder.
        set_mode(path, folder.stat().st_mode & 0o666)
        sync_path(path)
        weight_map |= dict.fromkeys(names, path.name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        write_json(folder / f"{stem}.safetensors.index.json", index)


def copy_side_files(base: Checkpoint, folder: Path) -> None:
    """Copy config, tokenizer and chat template; the config states that the weights are fp32."""
    for relative in base.side_files()[0]:
        if relative == Path(RECORD):
            continue
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        if relative == Path("config.json"):
            config = json.loads((base.path / relative).read_bytes())
            config.pop("torch_dtype", None)
            write_json(target, {**config, "dtype": "float32"})
        else:
            copy_file(base.path / relative, target)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON, and make it durable."""
    text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
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
