"""SNIP importance scores of a tuned model (arXiv 1810.02340, as computed for 2402.05162).

A weight's score is its absolute value times the sum, over samples, of the absolute gradients of the
sample's loss.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from patchc.derivation.derive_options import DeriveOptions
from patchc.derivation.gradient_store import GradientStore
from patchc.errors import DeriveError, UsageError
from patchc.kernels.snip import add_scores
from patchc.selection.candidates import NameFilter, is_decoder_linear

Shapes = Mapping[str, tuple[int, ...]]


def scored_tensors(shapes: Shapes, options: DeriveOptions) -> dict[str, tuple[int, ...]]:
    """Choose the tensors to score: the decoder's linear layers, or those that ``include`` names.

    Raises:
        UsageError: an expression is malformed, or nothing is left to score.
    """
    names = NameFilter(options.include, options.exclude)
    chosen = {
        name: shape
        for name, shape in shapes.items()
        if names.matches(name) and (options.include or is_decoder_linear(name, shape))
    }
    if not chosen:
        raise UsageError("include and exclude leave no tensor to score; widen them")
    return chosen


class GradientSums:
    """Σ_n |∂L_n/∂W| in fp32, of one loss L_n after another.

    Implements :class:`patchc.layered.passes.Collector`.

    Args:
        store: where the sums lie, flat and in fp32.
        shapes: of the tensors to score.
        device: of the gradients.
        joined: the matrix that is both embedding and head, if it is scored: its gradients are those
            of one loss in each pass.
    """

    def __init__(
        self, store: GradientStore, shapes: Shapes, device: torch.device, joined: str | None
    ) -> None:
        self.wanted: Collection[str] = shapes.keys()
        self._store = store
        self._shapes = shapes
        self._device = device
        self._joined = joined
        self._own: Tensor | None = None
        self._begun: set[str] = set()
        self._sums: dict[str, Tensor] = {}

    def begin(self, names: Collection[str]) -> None:
        """See :class:`Collector`; sums of earlier passes go on."""
        for name in names:
            if name in self._begun:
                size = self._shapes[name]
                flat = self._store.read(name, 0, torch.Size(size).numel())
                self._sums[name] = flat.to(self._device).view(size)
            else:
                self._sums[name] = torch.zeros(self._shapes[name], device=self._device)
            if name == self._joined:
                self._own = torch.zeros(self._shapes[name], device=self._device)

    def add(self, name: str, gradient: Tensor) -> None:
        """See :class:`Collector`."""
        add_scores(self._sums[name], gradient.float())

    def add_block(self, name: str, first_row: int, gradient: Tensor) -> None:
        """See :class:`Collector`."""
        rows = slice(first_row, first_row + len(gradient))
        if self._own is not None:
            self._own[rows] = gradient.float()
        else:
            add_scores(self._sums[name][rows], gradient.float().contiguous())

    def add_rows(self, name: str, rows: Tensor, gradient: Tensor) -> None:
        """See :class:`Collector`."""
        if self._own is not None:
            self._own[rows] += gradient.float()
        else:
            self._sums[name][rows] += gradient.float().abs()

    def finish(self, names: Collection[str]) -> None:
        """See :class:`Collector`."""
        for name in names:
            total = self._sums.pop(name)
            if name == self._joined and self._own is not None:
                add_scores(total, self._own)
                self._own = None
            self._store.write(name, 0, total.view(-1))
            self._begun.add(name)


def snip_score(source: str, gradients: Tensor, values: Tensor) -> Tensor:
    """Compute |values| ⊙ gradients in fp32, where values are weights or their delta.

    Raises:
        DeriveError: a score is not finite; ``source`` names the direction and the tensor.
    """
    score = torch.zeros(values.shape, device=values.device)
    add_scores(score, gradients, values)
    if not torch.isfinite(score).all():
        raise DeriveError(
            f"{source} has a score that is not finite; lower the learning rate or the number of "
            "steps"
        )
    return score
