"""SNIP scores against an independent loop over autograd."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny_llama import write_base
from transformers import AutoModelForCausalLM

from patchc.derivation.derive_options import DeriveOptions
from patchc.derivation.examples import Example, mean_loss, pad
from patchc.derivation.scores import gradient_sums, scored_tensors, snip_score
from patchc.errors import DeriveError, UsageError
from patchc.progress import ignore_progress

EXAMPLES = [Example((6, 7, 8), (9, 10)), Example((11,), (7, 8, 9, 10)), Example((7,), (8,))]


@pytest.fixture
def model(tmp_path: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(write_base(tmp_path), dtype=torch.float32).eval()


def oracle(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """|W| ⊙ Σ_n |∂L_n/∂W| over all parameters, L_n from transformers' own loss."""
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


def losses(model: torch.nn.Module) -> list[Callable[[], torch.Tensor]]:
    batches = [pad([example], torch.device("cpu")) for example in EXAMPLES]
    return [partial(mean_loss, model, batch) for batch in batches]


def test_scores_equal_the_oracle(model: torch.nn.Module) -> None:
    expected = oracle(model)
    chosen = scored_tensors(dict(model.named_parameters()), DeriveOptions())
    sums = gradient_sums(model, chosen, losses(model), ignore_progress, "se")
    assert len(sums) == 14
    for name, gradients in sums.items():
        score = snip_score(name, gradients, chosen[name])
        assert score.dtype == torch.float32
        torch.testing.assert_close(score, expected[name], rtol=1e-4, atol=1e-9)


def test_no_gradient_is_held_afterwards(model: torch.nn.Module) -> None:
    chosen = scored_tensors(dict(model.named_parameters()), DeriveOptions())
    gradient_sums(model, chosen, losses(model), ignore_progress, "se")
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(DeriveError, match="se: tensor 'x' has a score that is not finite"):
        snip_score("se: tensor 'x'", torch.tensor([1e38]), torch.tensor([1e38]))


def test_by_default_the_decoders_linear_layers_are_scored(model: torch.nn.Module) -> None:
    chosen = scored_tensors(dict(model.named_parameters()), DeriveOptions())
    assert {name.split(".")[-2] for name in chosen} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip


def test_include_and_exclude_choose_others(model: torch.nn.Module) -> None:
    options = DeriveOptions(include=("embed", r"layers\.1"), exclude=("mlp", "norm"))
    chosen = scored_tensors(dict(model.named_parameters()), options)
    assert "model.embed_tokens.weight" in chosen
    assert len(chosen) == 5


def test_nothing_to_score_is_refused(model: torch.nn.Module) -> None:
    with pytest.raises(UsageError, match="no tensor to score"):
        scored_tensors(dict(model.named_parameters()), DeriveOptions(exclude=(".",)))
