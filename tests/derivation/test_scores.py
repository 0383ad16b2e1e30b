"""SNIP scores against an independent loop over autograd."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from layered_models import CPU, held_model, values_of
from tiny_llama import write_base
from transformers import AutoModelForCausalLM

from patchc.derivation.derive_options import DeriveOptions
from patchc.derivation.examples import Example, mean_loss, pad
from patchc.derivation.gradient_store import HeldGradients
from patchc.derivation.scores import GradientSums, Shapes, scored_tensors, snip_score
from patchc.errors import DeriveError, UsageError
from patchc.layered.boundaries import HeldBoundaries
from patchc.layered.layered_model import LayeredModel
from patchc.layered.passes import Pass, Term

EXAMPLES = [Example((6, 7, 8), (9, 10)), Example((11,), (7, 8, 9, 10)), Example((7,), (8,))]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path)


@pytest.fixture
def model(base: Path) -> LayeredModel:
    return held_model(base)


def oracle(base: Path) -> dict[str, torch.Tensor]:
    """|W| ⊙ Σ_n |∂L_n/∂W| over all parameters, L_n from transformers' own loss."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    parameters = dict(model.named_parameters())
    sums = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for example in EXAMPLES:
        tokens = torch.tensor([example.prompt + example.response])
        labels = tokens.clone()
        labels[:, : len(example.prompt)] = -100
        loss = model(input_ids=tokens, labels=labels).loss
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        for name, gradient in zip(parameters, gradients, strict=True):
            sums[name] += gradient.abs()
    return {name: value.detach().abs() * sums[name] for name, value in parameters.items()}


def gradient_sums(model: LayeredModel, chosen: Shapes) -> dict[str, torch.Tensor]:
    """One loss after another, as a derivation in memory does."""
    held = HeldGradients({name: math.prod(shape) for name, shape in chosen.items()}, CPU)
    sums = GradientSums(held, chosen, CPU, None)
    for example in EXAMPLES:
        loss = partial(mean_loss, model, pad([example], CPU))
        Pass(model, [Term(loss)], sums, HeldBoundaries(), True).run()
    return {
        name: held.read(name, 0, math.prod(shape)).view(shape) for name, shape in chosen.items()
    }


def test_scores_equal_the_oracle(model: LayeredModel, base: Path) -> None:
    expected = oracle(base)
    chosen = scored_tensors(model.parts.shapes, DeriveOptions())
    sums = gradient_sums(model, chosen)
    assert len(sums) == 14
    for name, gradients in sums.items():
        score = snip_score(name, gradients, values_of(model)[name])
        assert score.dtype == torch.float32
        torch.testing.assert_close(score, expected[name], rtol=1e-4, atol=1e-9)


def test_no_gradient_is_held_afterwards(model: LayeredModel) -> None:
    everything = scored_tensors(model.parts.shapes, DeriveOptions(include=(".",)))
    assert everything.keys() == model.parts.shapes.keys()
    gradient_sums(model, everything)
    for parameter in model.parts.model.parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(DeriveError, match="se: tensor 'x' has a score that is not finite"):
        snip_score("se: tensor 'x'", torch.tensor([1e38]), torch.tensor([1e38]))


def test_by_default_the_decoders_linear_layers_are_scored(model: LayeredModel) -> None:
    chosen = scored_tensors(model.parts.shapes, DeriveOptions())
    assert {name.split(".")[-2] for name in chosen} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip


def test_include_and_exclude_choose_others(model: LayeredModel) -> None:
    options = DeriveOptions(include=("embed", r"layers\.1"), exclude=("mlp", "norm"))
    chosen = scored_tensors(model.parts.shapes, options)
    assert "model.embed_tokens.weight" in chosen
    assert len(chosen) == 5


def test_nothing_to_score_is_refused(model: LayeredModel) -> None:
    with pytest.raises(UsageError, match="no tensor to score"):
        scored_tensors(model.parts.shapes, DeriveOptions(exclude=(".",)))
