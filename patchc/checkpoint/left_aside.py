"""Weight files in a model's folder that are not the model, and what loaders do with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from patchc.checkpoint.loaded_files import LoadedFiles
from patchc.escaping import shown

ADAPTER_CONFIG = "adapter_config.json"

_MOST_NAMED = 5
_MOST_REASONS = 12
_MOST_CHARACTERS = 80

SCORES = "scores of `patchc derive`, which are no weights"
"""The reason for files that belong beside a model, so that nothing is told of them."""

_ADAPTER = "an adapter, which transformers puts on the model where peft is installed"
_REASONS = {
    r"adapter_(model|config)\..*": _ADAPTER,
    r"scores(-[a-z]+)?(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?": SCORES,
    r"consolidated.*\.safetensors.*": "Mistral's layout, which vLLM prefers to the other files",
    r".*\.gguf": "GGUF, which transformers loads only when its name is given",
    r"(pytorch_model|adapter_model).*|.*\.(pth|ckpt)": "pickles, loaded only without safetensors",
    r".*\.(onnx|h5|msgpack)": "for other programs than transformers and vLLM",
    r"model\.(?!safetensors)[^.]+\.safetensors|.*\.safetensors\.index\.(?!json$).*": (
        "a variant, which transformers loads only when it is named"
    ),
}
"""Pattern of a name in small letters → what loaders do with such a file."""


@dataclass(frozen=True)
class LeftAside:
    """A weight file in a model's folder that does not belong to the checkpoint.

    Attributes:
        name: its path below the folder, with slashes.
        reason: why it is left aside, in words.
    """

    name: str
    reason: str


class HasLeftAside(Protocol):
    """A checkpoint."""

    @property
    def left_aside(self) -> tuple[LeftAside, ...]: ...  # noqa: D102


def is_adapter(name: str) -> bool:
    """Whether a file of this name holds the weights of an adapter."""
    return name.startswith("adapter_model.")


def why_left_aside(name: str, files: LoadedFiles, is_link: bool) -> str:
    """Say what loaders do with a weight file that is not the model.

    Args:
        name: its path below the folder, with slashes.
        files: those that are the model.
        is_link: whether it is a link to a folder.
    """
    path = PurePosixPath(name)
    if is_link:
        return "a link to a folder"
    if len(path.parts) > 1:
        return "in a folder below, where loaders do not look"
    if name.startswith("."):
        return "hidden, so that loaders pass over it"
    for pattern, reason in _REASONS.items():
        if re.fullmatch(pattern, name.lower()):
            return reason
    if name == "model.safetensors.index.json":
        return f"transformers loads {files.names[0]} without it; vLLM goes by it"
    if name.endswith(".index.json"):
        return "an index of other files"
    if files.index:
        return f"{files.index} does not name it"
    return f"transformers loads {files.names[0]} alone"


def tell(left: Iterable[LeftAside]) -> str:
    """Put weight files that were left aside into one line, by their reasons; empty without any.

    Scores are passed over: they belong beside a model.
    """
    by_reason: dict[str, list[str]] = {}
    for one in left:
        by_reason.setdefault(one.reason, []).append(one.name)
    by_reason.pop(SCORES, None)
    told = [f"{listed(names)} ({reason})" for reason, names in by_reason.items()]
    more = sum(map(len, list(by_reason.values())[_MOST_REASONS:]))
    return "; ".join([*told[:_MOST_REASONS], *([f"and {more:,} more"] if more else [])])


def left_aside_of(models: Iterable[HasLeftAside]) -> tuple[LeftAside, ...]:
    """What was left aside of several models, each once, in name order."""
    found = {one for model in models for one in model.left_aside}
    return tuple(sorted(found, key=lambda one: (one.name, one.reason)))


def listed(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    first = ", ".join(shown(name, _MOST_CHARACTERS) for name in names[:_MOST_NAMED])
    more = len(names) - _MOST_NAMED
    return f"{first} and {more:,} more" if more > 0 else first
