"""Negative preference optimisation against values worked out by hand and token by token."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from layered_models import CPU, gradients_of, held_model
from tiny_llama import write_base

from patchc.derivation.examples import Example, log_probabilities, pad
from patchc.derivation.response_tuning import base_log_probabilities, npo_batch_loss, npo_loss
from patchc.layered.boundaries import HeldBoundaries
from patchc.layered.layered_model import LayeredModel

EXAMPLES = [Example((6, 7, 8), (9, 10)), Example((11,), (7, 8, 9, 10, 11)), Example((7,), (8,))]


@pytest.fixture
def model(tmp_path: Path) -> LayeredModel:
    return held_model(write_base(tmp_path))


def likely_at_first(model: LayeredModel, size: int) -> dict[Example, float]:
    return base_log_probabilities(model, EXAMPLES, size, HeldBoundaries())


def test_the_loss_is_the_one_worked_out_by_hand() -> None:
    """π/π_base is 4 and 1/4, β is 1/2: (2/β) · (log(1 + 2) + log(1 + 1/2)) / 2 = 2 log 4.5."""
    before = torch.tensor([math.log(0.1), math.log(0.8)])
    likely = torch.tensor([math.log(0.4), math.log(0.2)])
    assert npo_loss(likely, before, 0.5).item() == pytest.approx(2 * math.log(4.5), rel=1e-6)


def test_at_the_base_the_loss_is_that_of_even_odds(model: LayeredModel) -> None:
    before = likely_at_first(model, 2)
    loss = npo_batch_loss(model, EXAMPLES, before, 0.1)
    assert loss.item() == pytest.approx(2 / 0.1 * math.log(2), rel=1e-5)


def test_a_small_beta_has_the_gradient_of_plain_ascent(model: LayeredModel) -> None:
    before = likely_at_first(model, 3)
    faded = gradients_of(model, [partial(npo_batch_loss, model, EXAMPLES, before, 1e-4)])
    plain = gradients_of(model, [lambda: log_probabilities(model, pad(EXAMPLES, CPU)).mean()])
    for name, wanted in plain.items():
        assert wanted.any(), name
        torch.testing.assert_close(faded[name], wanted, rtol=1e-3, atol=1e-6)


def test_log_probabilities_are_sums_over_single_tokens(model: LayeredModel) -> None:
    expected = []
    for example in EXAMPLES:
        tokens, total = list(example.prompt), 0.0
        for token in example.response:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([tokens])).logits[0, -1]
            total += math.log(torch.softmax(logits.double(), 0)[token].item())
            tokens.append(token)
        expected.append(total)
    found = likely_at_first(model, 2)
    assert [found[example] for example in EXAMPLES] == pytest.approx(expected, rel=1e-5)
