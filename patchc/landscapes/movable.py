"""A loaded model whose weights are set to places around the base's; there is no copy of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor

from patchc.checkpoint import Checkpoint
from patchc.derivation.base_model import name_tensors
from patchc.errors import NumericError, UnsupportedInputError
from patchc.landscapes.directions import CHUNK, RandomDirection, Values, norm_of
from patchc.landscapes.place import Place
from patchc.layered.sources import BaseSource

_SHOWN = 3


class MovableModel:
    """A model of transformers that can be moved; it is at the base when it is loaded.

    A place's values are computed from the files each time, in float64, and rounded to fp32 and then
    to the model's dtype. Where no random direction takes part, base and patched model are the
    files' own words. Random directions are scaled by the base's norms for the patched model too.

    Args:
        model: the loaded base.
        base: the open checkpoint that it was loaded from.
        patched: the patched checkpoint, or None.
        directions: the random directions by name.
        threads: compute chunks of tensors.

    Raises:
        UnsupportedInputError: the model's parameters are not those that the base stores, or base
            and patched model differ in other things than values.
    """

    def __init__(
        self,
        model: Any,
        base: Checkpoint,
        patched: Checkpoint | None,
        directions: dict[str, RandomDirection],
        threads: ThreadPoolExecutor,
    ) -> None:
        self._tensors = _parameters(model, base)
        self._words = {name: tensor.numel() for name, tensor in self._tensors.items()}
        self._base = BaseSource(base)
        self._patched = None
        if patched is not None:
            _check_alike(base, patched)
            self._patched = BaseSource(patched)
        self._directions = directions
        self._threads = threads
        self._norms: dict[str, float] = {}
        self._place: Place | None = Place()

    def move(self, place: Place) -> None:
        """Set all weights to a place.

        Raises:
            NumericError: a value is not finite there; the model is at no place then.
            CheckpointError: a file became unreadable or shorter.
        """
        if place == self._place:
            return
        self._place = None
        for name, tensor in self._tensors.items():
            words = self._words[name]
            for direction in place.moves:
                self._directions[direction].measure(name, words, self._threads)
            if place.moves and name not in self._norms:
                read = partial(_read, self._base, name)
                self._norms[name] = norm_of(read, words, self._threads)
            jobs = [(place, name, tensor, first) for first in range(0, words, CHUNK)]
            for _ in self._threads.map(self._set_chunk, jobs):
                pass
        self._place = place

    def restore(self) -> None:
        """Set all weights to the base's, bit for bit."""
        self.move(Place())

    def _set_chunk(self, job: tuple[Place, str, Tensor, int]) -> None:
        place, name, tensor, first = job
        words = min(CHUNK, self._words[name] - first)
        source = self._source_of(place)
        if not place.moves and source is not None:
            exact = torch.empty(words, dtype=tensor.dtype)
            source.read(name, first, exact)
            _put(tensor, first, exact)
            return
        values = torch.empty(words, dtype=torch.float64)
        self._fill(place, name, first, values)
        found = values.numpy()
        for direction, alpha in place.moves.items():
            self._directions[direction].add(name, alpha, self._norms[name], first, found)
        rounded = values.to(torch.float32).to(tensor.dtype)
        if not bool(torch.isfinite(rounded).all()):
            raise NumericError(
                f"tensor {name!r} is not finite at {place.to_json()}; take a smaller radius or line"
            )
        _put(tensor, first, rounded)

    def _source_of(self, place: Place) -> BaseSource | None:
        """Return the files with a place's values before random directions, if there are such."""
        return {0.0: self._base, 1.0: self._patched}.get(place.patch)

    def _fill(self, place: Place, name: str, first: int, values: Tensor) -> None:
        source = self._source_of(place)
        if source is not None:
            source.read(name, first, values)
            return
        assert self._patched is not None  # other places have a patch
        self._base.read(name, first, values)
        end = torch.empty_like(values)
        self._patched.read(name, first, end)
        values += place.patch * (end - values)


def _read(source: BaseSource, name: str, first: int, values: Values) -> None:
    source.read(name, first, torch.from_numpy(values))


def _put(tensor: Tensor, first: int, values: Tensor) -> None:
    with torch.no_grad():
        tensor.view(-1)[first : first + values.numel()].copy_(values)


def _parameters(model: Any, base: Checkpoint) -> dict[str, Tensor]:
    """Map names in the base to the model's parameters, tied ones once and under the first name."""
    parameters = {id(one) for one in model.parameters()}
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in name_tensors(model, base).items():
        if id(tensor) in parameters:
            found.setdefault(id(tensor), (name, tensor.detach()))
    return dict(found.values())


def _check_alike(base: Checkpoint, patched: Checkpoint) -> None:
    def outline(checkpoint: Checkpoint) -> dict[str, tuple[str, Sequence[int]]]:
        return {name: (one.dtype.name, one.shape) for name, one in checkpoint.tensors.items()}

    before, after = outline(base), outline(patched)
    names = dict.fromkeys((*before, *after))
    differing = [name for name in names if before.get(name) != after.get(name)]
    if differing:
        more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        raise UnsupportedInputError(
            f"{patched.path}: the patched model has other tensors than the base "
            f"({', '.join(map(repr, differing[:_SHOWN]))}{more}), so there is no line between them"
        )
