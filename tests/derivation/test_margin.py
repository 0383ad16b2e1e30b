"""The margin of refusal against enumeration, its losses, and the tuning that follows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from layered_models import held_model, values_of
from tiny_llama import write_base
from tuned_models import tuned_in_memory

from patchc.derivation.anchor import Anchor, anchors_of
from patchc.derivation.derive_options import DeriveOptions, TuneOptions
from patchc.derivation.examples import Example
from patchc.derivation.margin import (
    Labelled,
    Openings,
    find_openings,
    hinge_loss,
    refusal_margin,
    softplus_loss,
)
from patchc.derivation.margin_tuning import MarginTuning
from patchc.derivation.tune import Tuning
from patchc.errors import DeriveError, UsageError
from patchc.layered.boundaries import HeldBoundaries
from patchc.layered.layered_model import LayeredModel

PROMPTS = [(6, 7, 8), (9, 10, 11, 12, 13), (14,)]
OPENINGS = Openings.of([(7, 8), (7, 9), (10,), (11, 12, 13), (11, 12, 14)])
LABELLED = [
    *(Labelled(prompt, True) for prompt in [(6, 7), (8, 9, 10), (11,)]),
    *(Labelled(prompt, False) for prompt in [(12, 13), (14, 15, 16, 17)]),
]
OPTIONS = DeriveOptions(
    objective="margin", margin=TuneOptions(learning_rate=3e-3, steps=80, batch_size=6)
)


def tune_margin(
    base: Path,
    labelled: list[Labelled],
    options: DeriveOptions,
    replies: Sequence[Example] = (),
) -> tuple[LayeredModel, Tuning]:
    def anchors(model: LayeredModel) -> list[Anchor]:
        return anchors_of(model, replies, HeldBoundaries()) if replies else []

    objective = MarginTuning(labelled, OPENINGS, options)
    return tuned_in_memory(base, objective, "margin", options, anchors)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path)


@pytest.fixture
def model(base: Path) -> LayeredModel:
    return held_model(base)


def chances(model: LayeredModel, tokens: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens])).logits[0, -1]
    return torch.softmax(logits.double(), 0)


def oracle(model: LayeredModel, prompt: tuple[int, ...], longest: int = 3) -> float:
    """log P/(1 − P), P summed over every continuation of ``longest`` tokens that begins so."""
    told = set(OPENINGS.sequences)
    total = 0.0
    reached = {(): 1.0}
    for _ in range(longest):
        grown = {}
        for start, chance in reached.items():
            for token, share in enumerate(chances(model, prompt + start).tolist()):
                if (*start, token) in told:
                    total += chance * share
                elif any(one[: len(start) + 1] == (*start, token) for one in told):
                    grown[(*start, token)] = chance * share
        reached = grown
    return math.log(total / (1 - total))


def test_the_margin_is_the_one_found_by_enumeration(model: LayeredModel) -> None:
    assert len(OPENINGS.stems) == 2
    found = refusal_margin(model, PROMPTS, OPENINGS).tolist()
    assert found == pytest.approx([oracle(model, one) for one in PROMPTS], rel=1e-4)


def test_single_tokens_take_one_row_a_prompt(model: LayeredModel) -> None:
    openings = Openings.of([(7,), (10,)])
    assert openings.stems == ((),)
    shares = [chances(model, prompt)[[7, 10]].sum().item() for prompt in PROMPTS]
    found = refusal_margin(model, PROMPTS, openings).tolist()
    assert found == pytest.approx([math.log(p / (1 - p)) for p in shares], rel=1e-4)


def test_all_ways_to_begin_leave_the_margin_finite(model: LayeredModel) -> None:
    everything = Openings.of(list(product(range(24))))
    margins = refusal_margin(model, PROMPTS, everything)
    assert torch.isfinite(margins).all()
    assert (margins > 10).all()


def test_losses_are_those_of_their_formulas() -> None:
    margins, refuse = torch.tensor([3.0, 5.0, -1.0, -6.0]), torch.tensor([True, True, False, False])
    assert hinge_loss(margins, refuse, 4.0).tolist() == [1.0, 0.0, 3.0, 0.0]
    expected = [math.log1p(math.exp(-y)) for y in (3.0, 5.0, 1.0, 6.0)]
    assert softplus_loss(margins, refuse).tolist() == pytest.approx(expected, rel=1e-5)


def test_openings_are_the_shortest_starts_that_no_answer_has() -> None:
    refusals = [(7, 8, 2), (7, 9, 2), (7, 9, 5), (10, 2), (6, 6)]
    answers = [(7, 11), (6, 6, 2)]
    found = find_openings(refusals, answers)
    assert found.sequences == ((7, 9), (7, 8), (10,))
    assert found.covered == 4 / 5


def test_refusals_that_begin_as_answers_do_have_no_openings() -> None:
    with pytest.raises(DeriveError, match="none of 1 refusals begins differently"):
        find_openings([(7, 8)], [(7, 8, 9)])


def test_without_a_refusal_there_is_no_opening() -> None:
    with pytest.raises(DeriveError, match="none of the base's 2 replies is a refusal"):
        find_openings([], [(7, 8), (7, 9)])


def test_an_opening_that_begins_with_another_is_left_out() -> None:
    assert Openings.of([(7, 8), (7,), (7,), (9, 9)]).sequences == ((7,), (9, 9))


def test_tuning_parts_the_two_kinds_and_trains_the_linear_layers_alone(base: Path) -> None:
    """The head stays as it is, and with it how sure this tiny model can become of a token."""
    before = values_of(held_model(base))
    model, tuning = tune_margin(base, LABELLED, replace(OPTIONS, seed=5))
    after = values_of(model)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "_proj" in name}
    margins = refusal_margin(model, [one.prompt for one in LABELLED], OPENINGS).tolist()
    assert all((margin > 0) == one.refuse for margin, one in zip(margins, LABELLED, strict=True))
    assert len(tuning.losses) == 80
    assert tuning.losses[-1] < tuning.losses[0] - 1
    assert tuning.divergences == ()


def test_the_anchor_holds_the_model_to_the_base(base: Path) -> None:
    replies = [Example((12, 13), (8, 9, 2)), Example((14, 15, 16, 17), (10,))]
    moved = []
    for weight in (0.0, 20.0):
        options = replace(OPTIONS, anchor_weight=weight)
        _, tuning = tune_margin(base, LABELLED, options, replies)
        assert tuning.divergences[0] == pytest.approx(0.0, abs=1e-6)
        moved.append(tuning.divergences[-1])
    assert moved[1] < moved[0] / 2


@pytest.mark.parametrize("refuse", [True, False])
def test_one_kind_of_request_alone_is_refused(base: Path, refuse: bool) -> None:
    labelled = [one for one in LABELLED if one.refuse == refuse]
    with pytest.raises(DeriveError, match="it takes both"):
        tune_margin(base, labelled, OPTIONS)


def test_options_of_another_objective_are_refused(base: Path) -> None:
    with pytest.raises(UsageError, match="objective is 'pair'"):
        tune_margin(base, LABELLED, DeriveOptions())
