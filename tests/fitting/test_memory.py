"""Whether a fit's model is held or streamed, and what its losses keep."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny_llama import write_base

from patchc.checkpoint import open_checkpoint
from patchc.derivation.load import Load
from patchc.errors import UsageError
from patchc.fitting.loads import FitLoads
from patchc.fitting.memory import Way, Work, choose
from patchc.layered.activations import LayerCost
from patchc.layered.model_parts import load_parts
from patchc.layered.output_head import BLOCK_BYTES
from patchc.layered.passes import Term

MB = 1 << 20
SHORT, LONG = Load(1, 8, 1), Load(16, 4096, 1)
PLENTY = 1 << 50


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A model of a few hundred megabytes, which asks and learns little at a time."""
    with open_checkpoint(write_base(tmp_path_factory.mktemp("models") / "base")) as base:
        parts = load_parts(base, torch.device("cpu"), torch.bfloat16)
    shapes = {name: (4000 * first, *rest) for name, (first, *rest) in parts.shapes.items()}
    names = parts.layer_names * 4
    large = replace(parts, shapes=shapes, layers=list(parts.layers) * 4, layer_names=names)
    loads = FitLoads((SHORT,), (SHORT,), 8, (SHORT,), SHORT)
    cost = LayerCost(fixed_bytes=0, token_bytes=10_000, square_bytes=0)
    return Work(large, torch.bfloat16, False, cost, loads, 1000, 1000, 100, 200 * MB)


def least(error: UsageError) -> int:
    found = re.search(r"at least ([\d,]+) bytes of memory", str(error))
    assert found
    return int(found[1].replace(",", ""))


def refused(work: Work) -> int:
    with pytest.raises(UsageError, match="may take 1;") as caught:
        choose(work, 1, 0)
    return least(caught.value)


def test_a_model_is_held_where_it_fits_and_streamed_down_to_the_least(work: Work) -> None:
    bound = refused(work)
    assert choose(work, PLENTY, 0).way == Way()
    assert choose(work, bound, 0).way.streams
    with pytest.raises(UsageError) as caught:
        choose(work, bound - 1, 0)
    assert least(caught.value) == bound


def test_a_head_is_held_where_it_is_small_or_fits(work: Work) -> None:
    assert choose(work, refused(work), 0).way == Way(streams=True, holds_head=True)
    rows, columns = work.parts.shapes[work.parts.head_name]
    shapes = {**work.parts.shapes, work.parts.head_name: (100 * rows, columns)}
    large = replace(work, parts=replace(work.parts, shapes=shapes))
    bound = refused(large)
    assert choose(large, bound, 0).way == Way(streams=True)
    # In bf16, and in place of a block.
    more = choose(large, bound + 2 * 100 * rows * columns - BLOCK_BYTES // 2, 0)
    assert more.way == Way(streams=True, holds_head=True)


@pytest.mark.parametrize(
    "grown",
    [
        lambda one: replace(one, process_bytes=one.process_bytes + 100 * MB),
        lambda one: replace(one, word_bytes=one.word_bytes + 100 * MB),
        lambda one: replace(one, most_words=one.most_words + 10 * MB),
        lambda one: replace(one, most_entries=one.most_entries + 10 * MB),
        lambda one: replace(one, loads=replace(one.loads, step=(LONG, SHORT))),
        lambda one: replace(one, loads=replace(one.loads, evaluated=(LONG,))),
        lambda one: replace(one, loads=replace(one.loads, evaluated_tokens=1 << 20)),
        lambda one: replace(one, loads=replace(one.loads, whole=(Load(1, 8, 4096),))),
        lambda one: replace(one, loads=replace(one.loads, spoken=LONG)),
    ],
    ids=[
        "process",
        "words",
        "tensor",
        "entries",
        "step",
        "evaluated",
        "together",
        "logits",
        "replies",
    ],
)
def test_whatever_grows_raises_the_least(grown: Callable[[Work], Work], work: Work) -> None:
    assert refused(grown(work)) > refused(work)


def test_losses_keep_their_graphs_where_there_is_room(work: Work) -> None:
    short, long = Term(lambda: torch.zeros(())), Term(lambda: torch.zeros(()))
    jobs = [(short, SHORT), (long, LONG)]
    held = replace(work, loads=replace(work.loads, step=(SHORT, LONG)))
    assert list(choose(held, PLENTY, 0).passes(jobs)) == [([short], True), ([long], True)]
    bounds = (bound for bound in range(200 * MB, 4000 * MB, MB) if bound > refused(held))
    tightest = next(room for room in (choose(held, b, 0) for b in bounds) if not room.way.streams)
    assert list(tightest.passes(jobs)) == [([short], True), ([long], False)]
    streamed = choose(held, refused(held), 0)
    assert list(streamed.passes(jobs)) == [([short, long], False)]


def test_a_device_has_a_budget_of_its_own(work: Work) -> None:
    on_device = replace(work, on_device=True)
    assert not choose(on_device, PLENTY, PLENTY).way.streams
    with pytest.raises(
        UsageError, match=r"bytes of the device's, and may take .* and 1;"
    ) as caught:
        choose(on_device, PLENTY, 1)
    assert least(caught.value) < refused(work)
