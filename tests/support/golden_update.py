"""The checkpoints of the specification's worked example of an update, words given by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tiny_checkpoints import Raw, write_file

BASE = {
    "a": ("BF16", (2, 2), [0x3F80, 0x4000, 0x8001, 0x0000]),
    "b": ("F32", (2,), [0x3F800001, 0x7F800000]),
    "old": ("U8", (3,), [1, 2, 3]),
}
RESULT = {
    "a": ("BF16", (3, 2), [0x3F80, 0x4000, 0x0001, 0x0000, 0x3F00, 0x0000]),
    "b": ("BF16", (2,), [0x3F80, 0x7F80]),
    "new": ("U8", (3,), [1, 2, 3]),
}
"""Name → dtype, shape, words."""

CHANGES = {"a": {2: 3, 4: 0x3F00}, "b": {0: -1, 1: -0x7F800000}, "+b": {1: 0x7F80}}
"""Name (a plus sign before those that only the result has) → position → step."""

BASE_CONFIG = b'{"vocab": 2}\n'
RESULT_CONFIG = b'{"vocab": 3}\n'
TEMPLATE = b"{{ messages }}\n"

_WIDTHS = {"BF16": 2, "F32": 4, "U8": 1}


def write_golden_models(folder: Path) -> tuple[Path, Path]:
    """The base's folder and the result's."""
    base, result = folder / "base", folder / "result"
    for path, tensors in ((base, BASE), (result, RESULT)):
        write_file(
            path / "model.safetensors",
            {
                name: Raw(dtype, shape, np.array(words, f"<u{_WIDTHS[dtype]}").tobytes())
                for name, (dtype, shape, words) in tensors.items()
            },
        )
    (base / "config.json").write_bytes(BASE_CONFIG)
    (result / "config.json").write_bytes(RESULT_CONFIG)
    (result / "chat_template.jinja").write_bytes(TEMPLATE)
    return base, result
