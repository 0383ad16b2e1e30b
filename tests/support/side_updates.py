"""Updates that change model cards and other side files, with and without the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tiny_checkpoints import normal, nudge, tree, write_model

import patchc

Side = Literal["base", "result"]
Contents = Mapping[str, bytes | None]
OTHER: dict[Side, Side] = {"base": "result", "result": "base"}
CARDS = {
    "README.md": (b"# A model\n", b"# A better model\n"),
    ".gitattributes": (b"*.safetensors filter=lfs\n", None),
    "docs/readme_zh.md": (None, b"new\n"),
}
OTHERS = {
    "merges.txt": (b'{"a": 1}', b'{"a": 2}'),
    "old.json": (b"{}", None),
    "new.json": (None, b"[]"),
}
WORDS = normal((3, 4096), "BF16", 1)
WEIGHTS = {
    "base": WORDS,
    "result": nudge(WORDS, 0.1, 2),
    "other": nudge(WORDS, 0.01, 3),
    "mixed": nudge(WORDS, 0.1, 2),
}
WEIGHTS["mixed"][1] = WORDS[1]


@dataclass(frozen=True)
class Update:
    """A patch that changes files, and weights or not."""

    patch: Path
    files: Mapping[str, tuple[bytes | None, bytes | None]]
    weights: bool

    def on(self, side: Side) -> dict[str, bytes | None]:
        """The files on a side; None for one that is missing there."""
        return {name: both[side == "result"] for name, both in self.files.items()}


def write_updates(folder: Path) -> list[Update]:
    """Write patches of weights and all files; files alone; cards alone; weights and cards."""
    made = []
    for number, (files, weights) in enumerate(
        [(CARDS | OTHERS, True), (CARDS | OTHERS, False), (CARDS, False), (CARDS, True)]
    ):
        place = folder / str(number)
        update = Update(place / "update.patchc", files, weights)
        sides: dict[Side, str] = {"base": "base", "result": "result" if weights else "base"}
        models = [
            write_sides_model(place / side, held, update.on(side)) for side, held in sides.items()
        ]
        patchc.diff(*models, out=update.patch, chunk_bits=12)
        made.append(update)
    return made


def write_sides_model(folder: Path, weights: str, files: Contents) -> Path:
    """Write a model with weights of that name, and side files; None for a file that is missing."""
    write_model(folder, {"w": WEIGHTS[weights]}, side_files={"same.txt": "same"})
    for name, content in files.items():
        if content is not None:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
    return folder


def contents_of(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder, by relative path."""
    return {name: content for name, (_, content) in tree(folder).items()}
