"""The divergence from the base against whole distributions, place by place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from layered_models import gradients_of, held_model, values_of
from tiny_llama import write_base
from transformers import AutoModelForCausalLM

from patchc.derivation.aligned import response_log_probabilities
from patchc.derivation.anchor import Anchor, divergence
from patchc.derivation.anchor import anchors_of as find_anchors
from patchc.derivation.examples import Example
from patchc.layered.boundaries import HeldBoundaries
from patchc.layered.layered_model import LayeredModel

PROMPTS = [(6, 7, 8), (9, 10, 11, 12, 13), (14,)]
REPLIES = [(9, 10), (11,), (12, 13, 14, 2)]
EXAMPLES = list(map(Example, PROMPTS, REPLIES))


@pytest.fixture
def model(tmp_path: Path) -> LayeredModel:
    return held_model(write_base(tmp_path))


def anchors_of(model: LayeredModel) -> list[Anchor]:
    return find_anchors(model, EXAMPLES, HeldBoundaries())


def shift(model: LayeredModel) -> None:
    generator = torch.Generator().manual_seed(1)
    for value in values_of(model).values():
        value += 0.05 * torch.randn(value.shape, generator=generator)


def test_replies_pass_together_as_far_as_their_logits_have_room(
    model: LayeredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = anchors_of(model)
    sizes: list[int] = []

    def noted(model: LayeredModel, replies: Sequence[Example]) -> list[torch.Tensor]:
        sizes.append(len(replies))
        return response_log_probabilities(model, replies)

    monkeypatch.setattr("patchc.derivation.anchor.response_log_probabilities", noted)
    longest, vocabulary = 4, model.parts.head.out_features
    monkeypatch.setattr("patchc.derivation.anchor.BLOCK_BYTES", 2 * 4 * longest * vocabulary)
    apart = anchors_of(model)
    assert sizes == [2, 1]
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one.shares, other.shares)


def test_it_is_zero_at_the_base_and_positive_away_from_it(model: LayeredModel) -> None:
    anchors = anchors_of(model)
    assert divergence(model, anchors).item() == pytest.approx(0.0, abs=1e-6)
    shift(model)
    assert divergence(model, anchors).item() > 1e-3


def test_it_is_the_mean_over_places_of_whole_distributions(
    model: LayeredModel, tmp_path: Path
) -> None:
    """The tiny vocabulary has fewer tokens than are told apart, so that none are lumped."""
    anchors = anchors_of(model)
    base = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    shift(model)
    total, places = 0.0, 0
    for prompt, reply in zip(PROMPTS, REPLIES, strict=True):
        for at in range(len(reply)):
            tokens = torch.tensor([prompt + reply[:at]])
            with torch.no_grad():
                theirs, ours = (
                    torch.log_softmax(one(input_ids=tokens).logits[0, -1].double(), 0)
                    for one in (base, model)
                )
            total += (theirs.exp() * (theirs - ours)).sum().item()
            places += 1
    assert divergence(model, anchors).item() == pytest.approx(total / places, rel=1e-3)


def test_what_is_lumped_together_makes_a_lower_bound(
    model: LayeredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchors = anchors_of(model)
    monkeypatch.setattr("patchc.derivation.anchor._NAMED", 4)
    coarse = anchors_of(model)
    assert coarse[0].named.shape == (2, 4)
    shift(model)
    found = divergence(model, coarse).item()
    assert 0 < found < divergence(model, anchors).item()


def test_the_gradient_leads_back_to_the_base(model: LayeredModel) -> None:
    anchors = anchors_of(model)
    shift(model)
    away = divergence(model, anchors).item()
    for name, gradient in gradients_of(model, [partial(divergence, model, anchors)]).items():
        values_of(model)[name] -= 0.01 * gradient
    assert divergence(model, anchors).item() < away
