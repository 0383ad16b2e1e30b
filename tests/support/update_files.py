"""Updates that change files beside the weights, whatever those are called and hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from tiny_checkpoints import Tensors, normal, nudge, write_model

import patchc
from patchc.checkpoint import Checkpoint

WEIGHTS = {"w": normal((40, 20), "BF16", 1)}
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class FileUpdate:
    """Two models' folders, and the patch between them."""

    base: Path
    tuned: Path
    patch: Path


def write_update(folder: Path, before: Files, after: Files) -> FileUpdate:
    """Write two models with these side files, and the update that an attacker makes of them.

    ``diff`` leaves hidden folders and weights of other formats alone, and an attacker does not.
    """
    tuned = {"w": nudge(WEIGHTS["w"], 0.1, 2)}
    update = FileUpdate(
        _model(folder / "base", WEIGHTS, before),
        _model(folder / "tuned", tuned, after),
        folder / "update.patchc",
    )
    every_file = mock.patch("patchc.checkpoint.Checkpoint.side_files", _every_file)
    with every_file, mock.patch("patchc.verbs.diff.code_to_write", return_value=()):
        patchc.diff(update.base, update.tuned, out=update.patch)
    return update


def _every_file(model: Checkpoint) -> tuple[list[Path], list[Path]]:
    found = (path for path in sorted(model.path.rglob("*")) if path.is_file())
    beside = [path.relative_to(model.path) for path in found]
    return [path for path in beside if str(path) not in model.shards], []


def _model(folder: Path, tensors: Tensors, files: Files) -> Path:
    write_model(folder, tensors)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
