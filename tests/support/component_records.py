"""The records that a derivation leaves beside its weights, written beside made-up components."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from patchc.checkpoint import open_checkpoint
from patchc.progress import ignore_progress
from patchc.selection.component_record import identify_base


def write_record(folder: Path, base: Path, direction: str, /, **changes: Any) -> Path:
    """Write what a derivation from ``base`` would, with some values changed."""
    with open_checkpoint(base) as opened:
        identity = identify_base(opened, ignore_progress)
    content = {"kind": "derive", "direction": direction, **identity, **changes}
    path = folder / "derive.json"
    path.write_text(json.dumps(content))
    return path
