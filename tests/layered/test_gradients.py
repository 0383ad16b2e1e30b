"""Gradients of a model that runs layer by layer against autograd through the whole model."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from pathlib import Path

import pytest
import torch
from derive_oracle import whole_model
from layered_models import CPU, gradients_of, held_model
from tiny_families import FAMILIES, write_family
from tiny_llama import write_base
from torch import Tensor

from patchc.derivation.aligned import response_loss
from patchc.derivation.examples import Example, mean_loss, pad

EXAMPLES = [Example((6, 7, 8), (9, 10)), Example((11,), (7, 8, 9, 12)), Example((0, 13), (3,))]
BLOCKS = [1 << 27, 7 * 64, 64]
"""Bytes of a block of the head: all of it, seven rows, one row."""


def gradients(base: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Those of a loss, layer by layer and of the whole model."""
    model, reference = held_model(base), whole_model(base)
    one, other = (
        partial(response_loss, m, EXAMPLES)
        if kind == "aligned"
        else partial(mean_loss, m, pad(EXAMPLES, CPU))
        for m in (model, reference)
    )
    other().backward()
    return (
        gradients_of(model, [one], keeps=kind == "kept"),
        {name: value.grad for name, value in reference.named_parameters()},
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["kept", "recomputed", "aligned"])
def test_every_bit_is_that_of_autograd(tmp_path: Path, family: str, kind: str) -> None:
    found, expected = gradients(write_family(tmp_path, family), kind)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("block", BLOCKS[1:])
def test_blocks_of_the_head_give_the_same_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, block: int
) -> None:
    monkeypatch.setattr("patchc.layered.output_head.BLOCK_BYTES", block)
    monkeypatch.setattr("patchc.layered.layered_model.BLOCK_BYTES", block)
    found, expected = gradients(write_family(tmp_path, family), "recomputed")
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_several_losses_are_summed(tmp_path: Path) -> None:
    base = write_base(tmp_path)
    model, reference = held_model(base), whole_model(base)
    for one in EXAMPLES:
        mean_loss(reference, pad([one], CPU)).backward()
    losses = [partial(mean_loss, model, pad([one], CPU)) for one in EXAMPLES]
    for keeps in (True, False):
        found = gradients_of(model, losses, keeps=keeps)
        for name, value in reference.named_parameters():
            assert torch.equal(found[name], value.grad), name


def test_a_model_is_freed_when_nobody_holds_it(tmp_path: Path) -> None:
    model = held_model(write_base(tmp_path))
    gradients_of(model, [partial(mean_loss, model, pad(EXAMPLES, CPU))])
    weights = weakref.ref(model.weights)
    gc.disable()
    try:
        del model
        assert weights() is None
    finally:
        gc.enable()
