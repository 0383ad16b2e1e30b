"""Checks the sizes that a config states against the checkpoint, before a model is built of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from patchc.checkpoint import Checkpoint
from patchc.errors import UnsupportedInputError

_LAYERS = re.compile(r"(num|n)_(\w+_)?(layers?|blocks?)|(encoder|decoder)_layers|depth")
_EXPERTS = re.compile(r"(\w+_)?(num|n)_(\w+_)?experts")
_SIZES = re.compile(
    r"(\w+_)?(size|dim|rank)|(num|n)_(\w+_)?(heads?|labels|groups|embd|inner)|d_\w+|(\w+_)?ffn_dim"
)
_POSITIONS = re.compile(
    r"(\w+_)?positions?_embeddings|(n|max)_(positions|ctx|seq_len|source_positions)"
)

_FEW_LAYERS, _MOST_LAYERS = 1 << 6, 1 << 10
_FEW_MODULES, _MOST_MODULES = 1 << 14, 1 << 17
_SMALL = 1 << 20
_MATRIX = 2
_LONG = 1 << 27


def check_sizes(file: Path, stated: dict[str, Any], checkpoint: Checkpoint | None) -> None:
    """Refuse a config that states more or larger layers than its checkpoint could hold.

    Transformers builds what is stated before it looks at the tensors. Small numbers pass whatever
    the checkpoint holds, since configs also state what is not used.

    Args:
        file: the config, for messages.
        stated: its content.
        checkpoint: the model's tensors; without them, only what no model has is refused.

    Raises:
        UnsupportedInputError: a size is absurd; names its key.
    """
    tensors = {} if checkpoint is None else checkpoint.tensors
    widest = max((size for one in tensors.values() for size in one.shape), default=0)
    bounds = (
        (_LAYERS, max(len(tensors), _FEW_LAYERS) if tensors else _MOST_LAYERS),
        (_EXPERTS, max(widest, _MOST_LAYERS)),
        (_SIZES, max(widest, _SMALL)),
        (_POSITIONS, _LONG),
    )
    largest: dict[re.Pattern[str], int] = {}
    for name, number in _integers(stated):
        for pattern, most in bounds:
            if pattern.fullmatch(name):
                if number > most:
                    raise _absurd(file, name, number, most)
                largest[pattern] = max(largest.get(pattern, 1), number)
    modules = prod(largest.get(pattern, 1) for pattern in (_LAYERS, _EXPERTS))
    # The weights of all experts of a layer may be one tensor, which has three dimensions then.
    stored = sum(
        one.shape[0] if len(one.shape) > 2 and one.words else 1 for one in tensors.values()
    )
    most = max(stored, _FEW_MODULES) if tensors else _MOST_MODULES
    if modules > most:
        raise _absurd(file, "layers times experts", modules, most)


def _absurd(file: Path, name: str, number: int, most: int) -> UnsupportedInputError:
    return UnsupportedInputError(
        f"{file}: {name:.80} is {number:,}, and with these weights it can be {most:,} at most; "
        "take the config of the model that the weights are of"
    )


def _integers(value: Any) -> Iterator[tuple[str, int]]:
    """Give each key that states a whole number, or a list of such, at any depth."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        if not isinstance(one, dict):
            continue
        for name, held in one.items():
            for number in held if isinstance(held, list) else [held]:
                if isinstance(number, int):
                    yield name, number
            waiting.append(held)
