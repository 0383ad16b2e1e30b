"""SNIP importance scores of a tuned model (arXiv 1810.02340, as computed for 2402.05162).

A weight's score is its absolute value times the sum, over samples, of the absolute gradients of the
sample's loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from patchc.derivation.derive_options import DeriveOptions
from patchc.derivation.gradients import pop_gradient, train_only
from patchc.errors import DeriveError, UsageError
from patchc.kernels.snip import add_scores
from patchc.progress import Progress, ProgressEvent
from patchc.selection.candidates import NameFilter, is_decoder_linear


def scored_tensors(tensors: Mapping[str, Tensor], options: DeriveOptions) -> dict[str, Parameter]:
    """Choose the tensors to score: the decoder's linear layers, or those that ``include`` names.

    Raises:
        UsageError: an expression is malformed, or nothing is left to score.
    """
    names = NameFilter(options.include, options.exclude)
    chosen = {
        name: tensor
        for name, tensor in tensors.items()
        if names.matches(name)
        and isinstance(tensor, Parameter)
        and (options.include or is_decoder_linear(name, tuple(tensor.shape)))
    }
    if not chosen:
        raise UsageError("include and exclude leave no tensor to score; widen them")
    return chosen


def gradient_sums(
    model: Any,
    chosen: Mapping[str, Parameter],
    losses: Sequence[Callable[[], Tensor]],
    progress: Progress,
    label: str,
) -> dict[str, Tensor]:
    """Compute Σ_n |∂L_n/∂W| for each tensor, in fp32; each of ``losses`` computes one L_n."""
    sums = {
        name: torch.zeros(tensor.shape, device=tensor.device) for name, tensor in chosen.items()
    }

    def add(name: str, parameter: Parameter) -> None:
        add_scores(sums[name], pop_gradient(parameter).float())

    with train_only(model, chosen, add):
        for done, loss in enumerate(losses, start=1):
            torch.autograd.backward(loss())
            progress(ProgressEvent(f"score {label}", done, len(losses), "samples"))
    return sums


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
