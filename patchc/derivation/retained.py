"""Tuning of a random share of the entries (single weights); all others stay unchanged.

A patch that retains the same entries then contains exactly what was tuned. The deltas of the tuned
entries are kept in fp32 beside the model, which stays in the base's dtype.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from patchc.derivation.gradients import pop_gradient
from patchc.errors import DeriveError
from patchc.kernels.bitmask import unpack, words_for
from patchc.kernels.philox import Retention, retention_stream, retention_threshold
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
        share: the share of the entries to tune, in (0, 1).
        seed: of the draws; a DARE merge of the same density and seed draws the same entries.

    Raises:
        DeriveError: no entry is drawn.
    """

    def __init__(self, tensors: Mapping[str, Parameter], share: float, seed: int) -> None:
        self._tensors = tensors
        self._positions = {
            name: _draw(name, tensor.numel(), share, seed).to(tensor.device)
            for name, tensor in tensors.items()
        }
        if not any(map(len, self._positions.values())):
            entries = sum(tensor.numel() for tensor in tensors.values())
            raise DeriveError(
                f"retain is {share:g}, and none of {entries:,} entries is drawn, so nothing would "
                "be tuned; raise retain, or take another seed"
            )
        self._base = {
            name: tensor.detach().view(-1)[self._positions[name]].float()
            for name, tensor in tensors.items()
        }
        self.deltas = {name: Parameter(torch.zeros_like(base)) for name, base in self._base.items()}

    def write(self) -> None:
        """Add the deltas to the base's values in the model."""
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                values = self._base[name] + self.deltas[name]
                tensor.view(-1)[self._positions[name]] = values.to(tensor.dtype)

    def values(self, name: str) -> Tensor:
        """Return a tensor with its deltas, before rounding; fp32."""
        whole = self._tensors[name].detach().float().clone()
        whole.view(-1)[self._positions[name]] = self._base[name] + self.deltas[name].detach()
        return whole

    def take(self, name: str, tensor: Parameter) -> None:
        """Move a tensor's gradient to its deltas."""
        gradient = pop_gradient(tensor).view(-1)[self._positions[name]].float()
        delta = self.deltas[name]
        delta.grad = gradient if delta.grad is None else delta.grad + gradient


def _draw(name: str, words: int, share: float, seed: int) -> Tensor:
    """Draw the positions of a tensor's retained entries; int64."""
    retention = Retention(seed, retention_stream(_STREAM, name), retention_threshold(share))
    bits = np.empty(words_for(words), np.uint32)
    mark_retained(bits, words, 0, retention)
    return torch.from_numpy(np.flatnonzero(unpack(bits, words)))
