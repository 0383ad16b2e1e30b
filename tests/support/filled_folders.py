"""A folder that is staged and filled like a model's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from patchc.files import staged_folder

INDEX = "model.safetensors.index.json"
ENTRIES = {
    "assets",
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    INDEX,
    "zz.json",
}
"""In the order in which they are moved, but for the index, which is the last."""


def write(out: Path, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Write such a folder, and call ``meanwhile`` before it is made an output."""
    with staged_folder(out) as staging:
        (staging / "assets").mkdir()
        for name in ENTRIES:
            (staging / name / "x" if name == "assets" else staging / name).write_text("new")
        meanwhile()
