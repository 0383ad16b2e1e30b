"""Weights that are read layer by layer: how often, how many at once, and when that fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from layered_models import CPU, Sums
from tiny_families import write_family
from torch import Tensor

from patchc.checkpoint import open_checkpoint
from patchc.derivation.examples import Example, mean_loss, pad
from patchc.errors import StorageError
from patchc.layered.boundaries import HeldBoundaries
from patchc.layered.layered_model import LayeredModel
from patchc.layered.model_parts import ModelParts, load_parts
from patchc.layered.passes import Pass, Term, evaluate
from patchc.layered.sources import BaseSource
from patchc.layered.weights import StreamedWeights

LAYERS = 3
EXAMPLES = [Example((6 + i, 7), tuple(range(8, 10 + i))) for i in range(6)]


class CountingSource:
    """Counts the reads of each tensor, and the places in memory that were filled."""

    def __init__(self, base: BaseSource) -> None:
        self.reads: Counter[str] = Counter()
        self.places: dict[str, set[int]] = {}
        self.broken = ""
        self._base = base

    def read(self, name: str, first: int, out: Tensor) -> None:
        if name == self.broken:
            raise StorageError(f"cannot read {name}")
        self.reads[name] += 1
        self.places.setdefault(name, set()).add(out.untyped_storage().data_ptr())
        self._base.read(name, first, out)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[tuple[ModelParts, CountingSource]]:
    with open_checkpoint(write_family(tmp_path, "llama")) as base:
        yield load_parts(base, CPU, torch.float32), CountingSource(BaseSource(base))


def layer_names(parts: ModelParts) -> set[str]:
    return {name for names in parts.layer_names for name in names.values()}


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("samples", [1, 6])
def test_scoring_reads_each_layer_at_most_twice(
    parts: tuple[ModelParts, CountingSource], ahead: bool, samples: int
) -> None:
    model_parts, source = parts
    weights = StreamedWeights(model_parts, source, CPU, torch.float32, False, ahead)
    model = LayeredModel(model_parts, weights, CPU, False)
    losses = [partial(mean_loss, model, pad([one], CPU)) for one in EXAMPLES[:samples]]
    linear = {name: model_parts.shapes[name] for name in model_parts.in_bf16}
    sums = Sums(linear)
    Pass(model, [Term(loss) for loss in losses], sums, HeldBoundaries(), False).run()
    weights.close()
    assert all(total.any() for total in sums.sums.values())
    inside = layer_names(model_parts)
    assert inside
    for name in inside:
        assert 1 <= source.reads[name] <= 2, name
    held = set().union(*(source.places[name] for name in inside))
    assert len(held) == (2 if ahead else 1)


def test_evaluation_reads_each_layer_once(parts: tuple[ModelParts, CountingSource]) -> None:
    model_parts, source = parts
    weights = StreamedWeights(model_parts, source, CPU, torch.float32, False, ahead=False)
    model = LayeredModel(model_parts, weights, CPU, False)
    losses = [partial(mean_loss, model, pad([one], CPU)) for one in EXAMPLES]
    together = [one.item() for one in evaluate(model, losses, HeldBoundaries())]
    assert {source.reads[name] for name in layer_names(model_parts)} == {1}
    with torch.no_grad():
        assert together == [loss().item() for loss in losses]
    weights.close()


@pytest.mark.parametrize("ahead", [True, False])
def test_a_layer_that_cannot_be_read_is_an_error_when_it_is_due(
    parts: tuple[ModelParts, CountingSource], ahead: bool
) -> None:
    model_parts, source = parts
    source.broken = "model.layers.1.mlp.up_proj.weight"
    weights = StreamedWeights(model_parts, source, CPU, torch.float32, False, ahead)
    weights.layer(0, 1)
    with pytest.raises(StorageError, match=r"layers\.1\.mlp"):
        weights.layer(1, 2)
    source.broken = ""
    assert len(weights.layer(1, 2)) == len(model_parts.layer_names[1])
    weights.close()


def test_changed_values_are_read_again(parts: tuple[ModelParts, CountingSource]) -> None:
    model_parts, source = parts
    weights = StreamedWeights(model_parts, source, CPU, torch.float32, False)
    for _ in range(2):
        weights.layer(0, 1)
        weights.layer(1, 0)
        weights.layer(0, 1)
    first = model_parts.layer_names[0]["mlp.up_proj.weight"]
    assert source.reads[first] == 1
    weights.changed()
    weights.layer(0, 1)
    weights.close()
    assert source.reads[first] == 2
    assert {source.reads[name] for name in model_parts.rest} == {1}
