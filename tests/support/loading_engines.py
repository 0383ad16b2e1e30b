"""A small engine: it fuses and shards what it loads, as serving engines do, by a loader of its own.

Of a checkpoint it takes ``q``, ``k``, ``v`` (rows of one parameter, an even part to each rank),
``o`` (columns), ``embed`` (rows), ``norm`` (held in bfloat16, whatever the checkpoint has) and
``ids`` (integers, whole).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from live_states import to_torch
from numpy.typing import NDArray
from tiny_checkpoints import NUMPY, normal, read_model

RANKS = 2
_ROWS = {"q.weight": 8, "k.weight": 4, "v.weight": 4}
_WIDTH = 600


def engine_tensors(seed: int = 0) -> dict[str, NDArray]:
    """A checkpoint that the engine loads; ``embed`` is larger than a chunk of 4096 words."""
    shapes = {**{name: (rows, _WIDTH) for name, rows in _ROWS.items()}, "o.weight": (_WIDTH, 8)}
    tensors = {
        name: normal(shape, "BF16", seed + i) for i, (name, shape) in enumerate(shapes.items())
    }
    tensors["embed.weight"] = normal((50, _WIDTH), "BF16", seed + 10)
    tensors["norm.weight"] = normal((_WIDTH,), "F32", seed + 11)
    tensors["ids"] = np.arange(seed, seed + 90, dtype=np.int32)
    return tensors


class Engine(torch.nn.Module):
    """What one rank holds, and the loader that fills it."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank
        own = {
            "qkv": (sum(_ROWS.values()) // RANKS, _WIDTH),
            "o": (_WIDTH, 8 // RANKS),
            "embed": (50 // RANKS, _WIDTH),
            "norm": (_WIDTH,),
        }
        for name, shape in own.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.bfloat16))
        self.register_buffer("ids", torch.zeros(90, dtype=torch.int32))

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Copy the rank's part of each tensor to where it is held."""
        loaded = set()
        for name, tensor in weights:
            place, part = self._place(name, tensor)
            place.copy_(part)
            loaded.add(name)
        return loaded

    def _place(self, name: str, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        held: Any = self
        if name in _ROWS:
            rows = _ROWS[name] // RANKS
            start = sum(_ROWS[one] // RANKS for one in list(_ROWS)[: list(_ROWS).index(name)])
            return held.qkv.narrow(0, start, rows), tensor.narrow(0, self.rank * rows, rows)
        if name == "o.weight":
            return held.o, tensor.chunk(RANKS, 1)[self.rank]
        if name == "embed.weight":
            return held.embed, tensor.chunk(RANKS)[self.rank]
        return getattr(held, name.partition(".")[0]), tensor


def engine_of(folder: Path, rank: int) -> Engine:
    """An engine that has loaded a checkpoint."""
    engine = Engine(rank)
    stored = read_model(folder).items()
    engine.load_weights(
        (name, to_torch(np.frombuffer(one.data, NUMPY[one.dtype]).reshape(one.shape)))
        for name, one in stored
    )
    return engine


def load_updates(engine: Engine, updates: Iterable[Any]) -> None:
    """Load sparse updates: where a copy that loaded them among NaN is not NaN, its values count."""
    for update in updates:
        if update.positions is None:
            engine.load_weights([(update.name, update.values.view(update.shape))])
            continue
        dense = torch.full((int(np.prod(update.shape)),), torch.nan, dtype=update.dtype)
        dense[update.positions.long()] = update.values
        loaded = copy.deepcopy(engine)
        for _, held in _floats(loaded):
            held.fill_(torch.nan)
        loaded.load_weights([(update.name, dense.view(update.shape))])
        for (_, held), (_, new) in zip(_floats(engine), _floats(loaded), strict=True):
            held.copy_(torch.where(new.isnan(), held, new))


def _floats(engine: Engine) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, held) for name, held in engine.named_buffers() if held.is_floating_point())
