"""SNIP importance scores of a tuned model (arXiv 1810.02340, as computed for 2402.05162)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from patchc.derivation.derive_options import DeriveOptions
from patchc.derivation.gradients import on_gradient
from patchc.errors import DeriveError, UsageError
from patchc.kernels.snip import add_scores
from patchc.progress import Progress, ProgressEvent
from patchc.selection.candidates import NameFilter, is_decoder_linear


def scored_tensors(tensors: Mapping[str, Tensor], options: DeriveOptions) -> dict[str, Parameter]:
    """The tensors to score: the decoder's linear layers, or those that ``include`` names.

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
    """Σ_n |∂L_n/∂W| per tensor, in fp32; each of ``losses`` gives the loss of one sample.

    One sample at a time, so that absolute values are taken per sample. Each gradient is added to
    the sum and released as soon as it is complete: besides weights and sums, only one is held.
    Meanwhile the model's other parameters are frozen; afterwards all are trainable.
    """
    model.requires_grad_(False)
    sums = {
        name: torch.zeros(tensor.shape, device=tensor.device) for name, tensor in chosen.items()
    }
    hooks = []
    for name, tensor in chosen.items():
        tensor.requires_grad_(True)
        hooks.append(on_gradient(tensor, _adder(sums[name])))
    for done, loss in enumerate(losses, start=1):
        torch.autograd.backward(loss())
        progress(ProgressEvent(f"score {label}", done, len(losses), "samples"))
    for hook in hooks:
        hook.remove()
    model.requires_grad_(True)
    return {name: total.requires_grad_(False) for name, total in sums.items()}


def snip_score(source: str, gradients: Tensor, values: Tensor) -> Tensor:
    """|values| ⊙ gradients in fp32, of weights or of their delta.

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


def _adder(total: Tensor) -> Callable[[Tensor], None]:
    def add(parameter: Tensor) -> None:
        assert parameter.grad is not None
        add_scores(total, parameter.grad.float())
        parameter.grad = None

    return add
