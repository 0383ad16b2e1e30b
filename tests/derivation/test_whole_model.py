"""Derivations against an ordinary loop over the whole model: every bit of weights and scores."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import torch
from derivations import LABELLED, OPENINGS, OPTIONS, derived, examples_of, material_of
from derive_oracle import Derived, anchors_in, batch_losses, derive_whole, whole_model
from layered_models import CPU
from safetensors.torch import load_file
from tiny_families import FAMILIES, write_family
from torch import Tensor

from patchc.derivation.derive_options import DeriveOptions, Direction
from patchc.derivation.examples import mean_loss, pad, shuffled
from patchc.derivation.margin import hinge_loss, refusal_margin, softplus_loss
from patchc.derivation.session import reproducible
from patchc.selection.candidates import is_decoder_linear
from patchc.selection.safepatching.inputs import scores_stem


def check(folder: Path, found: Derived, options: DeriveOptions, scored: set[str]) -> None:
    written = load_file(folder / "model.safetensors")
    assert written.keys() == found.tuned.keys()
    for name, expected in found.tuned.items():
        assert torch.equal(written[name], expected), name
    for kind in options.scores:
        written = load_file(folder / f"{scores_stem(kind)}.safetensors")
        assert written.keys() == scored
        for name, expected in found.scores(kind).items():
            if name in scored:
                assert torch.equal(written[name], expected), (kind, name)


def moved(found: Derived) -> set[str]:
    return {name for name, value in found.tuned.items() if not torch.equal(value, found.base[name])}


def responses_whole(
    base: Path, folder: Path, options: DeriveOptions, direction: Direction, anchored: bool
) -> Derived:
    with reproducible(CPU, options.seed):
        model = whole_model(base)
        examples = examples_of(folder, base)
        anchors = anchors_in(model, material_of(folder, options).anchors) if anchored else []
        sample = random.Random(options.seed).sample(examples, options.score_samples)
        samples = [partial(mean_loss, model, pad([one], CPU)) for one in sample]
        losses = batch_losses(model, examples, options, direction)
        tuning = options.tuning(direction)
        names = [name for name, _ in model.named_parameters()]
        rates = [tuning.learning_rate] * tuning.steps
        return derive_whole(
            model, names, losses, samples, anchors, options, direction, rates
        )  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pair_with_anchors_and_scores_of_everything(tmp_path: Path, family: str) -> None:
    base = write_family(tmp_path / "base", family)
    options = replace(OPTIONS, include=(".",))
    reports = derived(base, material_of(tmp_path, options), tmp_path / "out", options)
    for report in reports:
        found = responses_whole(base, tmp_path, options, report.direction, True)
        assert report.first_loss == found.losses[0]
        assert report.last_loss == found.losses[-1]
        assert moved(found) == set(found.base)
        check(report.path, found, options, set(found.base))
    assert len(reports) == 2


@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_npo_without_anchors_and_clipping(tmp_path: Path, family: str) -> None:
    base = write_family(tmp_path / "base", family)
    tuning = replace(OPTIONS.se, clip=None, steps=4)
    options = replace(OPTIONS, objective="npo", se=tuning)
    material = material_of(tmp_path, options, anchored=False)
    (report,) = derived(base, material, tmp_path / "out", options)
    found = responses_whole(base, tmp_path, options, "se", False)
    assert report.last_loss == found.losses[-1]
    check(report.path, found, options, linear_layers(found))


@pytest.mark.parametrize("family", ["llama, tied", "qwen2"])
def test_the_margin_with_anchors(tmp_path: Path, family: str) -> None:
    base = write_family(tmp_path / "base", family)
    options = replace(OPTIONS, objective="margin")
    (report,) = derived(base, material_of(tmp_path, options), tmp_path / "out", options)
    with reproducible(CPU, options.seed):
        model = whole_model(base)
        names = [
            name
            for name, value in model.named_parameters()
            if is_decoder_linear(name, tuple(value.shape))
        ]
        anchors = anchors_in(model, material_of(tmp_path, options).anchors)
        steps, rate = options.margin.steps, options.margin.learning_rate
        rates = [rate * min(step / 3, (steps - step + 1) / steps) for step in range(1, steps + 1)]
        losses, samples = margin_losses(model, options), margin_samples(model, options)
        found = derive_whole(
            model, names, losses, samples, anchors, options, "margin", rates
        )  # fmt: skip
    assert report.last_loss == found.losses[-1]
    assert moved(found) == set(names)
    check(report.path, found, options, set(names))


def margin_losses(model: Any, options: DeriveOptions) -> Iterator[Callable[[], Tensor]]:
    half = options.margin.batch_size // 2
    kinds = [[one for one in LABELLED if one.refuse == refuse] for refuse in (True, False)]
    for refuse, answer in zip(*(shuffled(k, half, options.seed) for k in kinds), strict=True):

        def loss(requests: Any = (*refuse, *answer)) -> Tensor:
            margins = refusal_margin(model, [one.prompt for one in requests], OPENINGS)
            labels = torch.tensor([one.refuse for one in requests])
            return hinge_loss(margins, labels, options.margin_target).mean()

        yield loss


def margin_samples(model: Any, options: DeriveOptions) -> list[Callable[[], Tensor]]:
    """Requests of both kinds in turn, each kind in an order of its own."""
    order = random.Random(options.seed)
    kinds = [[one for one in LABELLED if one.refuse == refuse] for refuse in (True, False)]
    mixed = zip_longest(*[order.sample(kind, len(kind)) for kind in kinds])
    sample = [one for pair in mixed for one in pair if one][: options.score_samples]

    def loss(one: Any) -> Tensor:
        margins = refusal_margin(model, [one.prompt], OPENINGS)
        return softplus_loss(margins, torch.tensor([one.refuse])).sum()

    return [partial(loss, one) for one in sample]


def linear_layers(found: Derived) -> set[str]:
    return {name for name, value in found.base.items() if is_decoder_linear(name, value.shape)}
