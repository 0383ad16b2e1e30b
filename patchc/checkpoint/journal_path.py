"""Where the journal of a run in place is: a hidden file beside the model's weights."""

from __future__ import annotations

import os
import re
from pathlib import Path

from patchc.reserved import short_name

_SUFFIX = ".patchc-journal"
_OWN = re.compile(r"(?i)\.(.*\.)?(patchc-journal|patchc-lock|[0-9a-f]{8}\.(moves|before|partial))")


def journal_path(model: Path) -> Path:
    """The journal's path, for a model's folder or single file; it goes where the model goes."""
    model = Path(os.path.realpath(model))
    if os.path.isdir(model):  # noqa: PTH112 (Path.is_dir raises where it may not look)
        return model / _SUFFIX
    if model.name == "model.safetensors":  # its folder is another name of the same model
        return model.with_name(_SUFFIX)
    return model.with_name(f".{short_name(model.name)}{_SUFFIX}")


def is_own_file(name: str) -> bool:
    """Tell from its name whether a file is a journal, or what a killed run left of an output.

    Such a file is no part of the model.
    """
    return _OWN.fullmatch(name) is not None
