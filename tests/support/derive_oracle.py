"""Derivation as an ordinary loop: the whole model, plain autograd, and torch's own AdamW."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from layered_models import CPU
from torch import Tensor
from transformers import AutoModelForCausalLM

from patchc.derivation.anchor import Anchor, anchors_of_batch, divergence
from patchc.derivation.derive_options import DeriveOptions, Direction
from patchc.derivation.examples import (
    Example,
    in_batches,
    log_probabilities,
    mean_loss,
    pad,
    shuffled,
)
from patchc.derivation.response_tuning import npo_batch_loss

Values = dict[str, Tensor]
Losses = Sequence[Callable[[], Tensor]]


@dataclass(frozen=True)
class Derived:
    """What the loop ends with.

    Attributes:
        base, tuned: the weights by name, before and after.
        base_sums, tuned_sums: sums of the samples' absolute gradients.
        losses: of the batches, without the anchor.
    """

    base: Values
    tuned: Values
    base_sums: Values
    tuned_sums: Values
    losses: list[float]

    def scores(self, kind: str) -> Values:
        """The scores of one kind, by tensor."""
        sums = self.base_sums if kind.startswith("base-") else self.tuned_sums
        values = self.base if kind == "base-weight" else self.tuned
        if kind.endswith("delta"):
            values = {name: self.tuned[name] - self.base[name] for name in self.tuned}
        return {name: (values[name] * sums[name]).abs() for name in sums}


def whole_model(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The base as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def anchors_in(model: Any, replies: Sequence[Example]) -> list[Anchor]:
    """The base's distributions along its replies."""
    with torch.no_grad():
        return [one for batch in in_batches(replies) for one in anchors_of_batch(model, batch)]


def batch_losses(
    model: Any, examples: list[Example], options: DeriveOptions, direction: Direction
) -> Iterator[Callable[[], Tensor]]:
    """The losses of the batches, for every objective but "margin"."""
    size = options.tuning(direction).batch_size
    before: dict[Example, float] = {}
    with torch.no_grad():
        for batch in in_batches(examples, size):
            before |= zip(batch, log_probabilities(model, pad(batch, CPU)).tolist(), strict=True)
    for batch in shuffled(examples, size, options.seed):
        if options.objective == "npo":
            yield partial(npo_batch_loss, model, batch, before, options.npo_beta)
        else:
            yield partial(mean_loss, model, pad(batch, CPU))


def derive_whole(
    model: Any,
    trained: Sequence[str],
    losses: Iterator[Callable[[], Tensor]],
    samples: Losses,
    anchors: Sequence[Anchor],
    options: DeriveOptions,
    direction: Direction,
    rates: Sequence[float],
) -> Derived:
    """Tune and score; ``rates`` has a learning rate for each step."""
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in trained)
    base = copies(parameters)
    base_sums = sums_of(parameters, samples)
    chosen = options.tuning(direction)
    count = min(-(-chosen.batch_size // 3), len(anchors))
    anchored = shuffled(anchors, count, options.seed)
    learning = [parameters[name] for name in trained]
    optimizer = torch.optim.AdamW(learning, weight_decay=0.0, fused=True)
    sign = -1.0 if options.objective == "pair" and direction == "se" else 1.0
    seen = []
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        terms: list[tuple[float, Callable[[], Tensor]]] = [(sign, next(losses))]
        if anchors:
            away = partial(divergence, model, next(anchored))
            terms.append((options.weight_of_anchor, away))
        seen.append(backward(model, terms)[0])
        if chosen.clip is not None:
            torch.nn.utils.clip_grad_norm_(learning, chosen.clip)
        optimizer.step()
    return Derived(base, copies(parameters), base_sums, sums_of(parameters, samples), seen)


def backward(model: Any, terms: Sequence[tuple[float, Callable[[], Tensor]]]) -> list[float]:
    """Take the gradients of one weighted loss after another, and return the losses.

    A matrix that is embedding and head gets the gradients as head first, those of all losses.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight is embedding.weight and embedding.weight.requires_grad
    if tied:
        head.weight = torch.nn.Parameter(embedding.weight.detach())
    values, rows = [], []
    for weight, term in terms:
        loss = term()
        torch.autograd.backward(weight * loss)
        values.append(loss.item())
        if tied:
            rows.append(embedding.weight.grad)
            embedding.weight.grad = None
    if tied:
        total, head.weight = head.weight.grad, embedding.weight
        for one in rows:
            total = total + one
        embedding.weight.grad = total
    return values


def sums_of(parameters: Values, samples: Losses) -> Values:
    """Σ_n |∂L_n/∂W|, one sample after another."""
    sums = {name: torch.zeros(value.shape) for name, value in parameters.items()}
    before = {name: value.requires_grad for name, value in parameters.items()}
    for value in parameters.values():
        value.requires_grad_()
    for sample in samples:
        gradients = torch.autograd.grad(sample(), list(parameters.values()))
        for total, gradient in zip(sums.values(), gradients, strict=True):
            total += gradient.float().abs()
    for name, value in parameters.items():
        value.requires_grad_(before[name])
    return sums


def copies(parameters: Values) -> Values:
    """The values as they are now, in fp32."""
    return {name: value.detach().float().clone() for name, value in parameters.items()}
