"""Tuning of the retained entries alone: what moves is kept beside a model in the base's dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils.hooks import RemovableHandle

from patchc.derivation.gradients import on_gradient
from patchc.errors import DeriveError
from patchc.kernels.bitmask import unpack, words_for
from patchc.kernels.philox.cpu import Retention, retention_stream, retention_threshold
from patchc.kernels.topk.sampled import mark_retained

_STREAM = "model-0"
"""The name under which a merge draws for its only model."""


class RetainedEntries:
    """The entries of some tensors that are tuned, with their deltas in fp32.

    The model holds fp32(base + delta) rounded to its own dtype, as a patch will write it; the
    deltas take the gradients as if there were no rounding. A tuned entry takes 24 bytes with the
    optimiser's state, the others none.

    Args:
        tensors: the parameters to tune, by name.
        share: of the entries that are retained, in (0, 1).
        seed: of the draws, which are those of a DARE merge with the same density and seed: it
            keeps exactly what was tuned.

    Raises:
        DeriveError: no entry is drawn.
    """

    def __init__(self, tensors: Mapping[str, Parameter], share: float, seed: int) -> None:
        self._tensors = tensors
        self._places: dict[str, Tensor] = {}
        self._base: dict[str, Tensor] = {}
        self._hooks: list[RemovableHandle] = []
        self.deltas: dict[str, Parameter] = {}
        for name, tensor in tensors.items():
            places = np.flatnonzero(retained(name, tensor.numel(), share, seed))
            self._places[name] = torch.from_numpy(places).to(tensor.device)
        if not any(map(len, self._places.values())):
            entries = sum(tensor.numel() for tensor in tensors.values())
            raise DeriveError(
                f"retain is {share:g}, and of {entries:,} entries none is drawn, so nothing would "
                "be tuned; raise retain, or take another seed"
            )
        for name, tensor in tensors.items():
            with torch.no_grad():
                self._base[name] = tensor.view(-1)[self._places[name]].float()
            self.deltas[name] = Parameter(torch.zeros_like(self._base[name]))
            self._hooks.append(on_gradient(tensor, self._taker(name)))

    def write(self) -> None:
        """Bring the model to where the deltas are."""
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                values = self._base[name] + self.deltas[name]
                tensor.view(-1)[self._places[name]] = values.to(tensor.dtype)

    def values(self, name: str) -> Tensor:
        """A tensor with its deltas before they are rounded; fp32."""
        whole = self._tensors[name].detach().float().clone()
        whole.view(-1)[self._places[name]] = self._base[name] + self.deltas[name].detach()
        return whole

    def close(self) -> None:
        """Take no more gradients."""
        for hook in self._hooks:
            hook.remove()

    def _taker(self, name: str) -> Callable[[Tensor], None]:
        def take(tensor: Tensor) -> None:
            assert tensor.grad is not None
            part = tensor.grad.view(-1)[self._places[name]].float()
            tensor.grad = None
            delta = self.deltas[name]
            delta.grad = part if delta.grad is None else delta.grad + part

        return take


def retained(
    name: str, words: int, share: float, seed: int
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which entries of a tensor are retained: bool [words]."""
    retention = Retention(seed, retention_stream(_STREAM, name), retention_threshold(share))
    marks = np.empty(words_for(words), np.uint32)
    mark_retained(marks, words, 0, retention)
    return unpack(marks, words)
