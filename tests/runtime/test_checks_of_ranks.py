"""What the first rank finds when all have coded their tensors is every rank's error."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue

import pytest
from build_inputs import LAYER_0, LAYER_1, random_inputs
from component_records import write_record
from threads_as_ranks import Seat, together
from tiny_checkpoints import names_of

import patchc
from patchc import Recipe
from patchc.errors import MismatchError
from patchc.runtime.ranks import Ranks, sharing


@pytest.mark.parametrize("values", ["ulp", "additive"])
def test_a_component_of_another_base_is_refused_by_every_rank(tmp_path: Path, values: str) -> None:
    """The bases differ behind what is read of them at first, so that only their digests tell."""
    inputs = random_inputs({LAYER_0: (50, 100), LAYER_1: (50, 100)})
    paths = inputs.write(tmp_path)
    for part in ("se", "osm"):
        write_record(paths[part], paths["base"], part, base_digest="a" * 64)
    before = names_of(tmp_path)
    sent: SimpleQueue[bytes] = SimpleQueue()

    class SendingSeat(Seat):
        def send(self, data: bytes) -> None:
            sent.put(data)

        def receive(self, _rank: int) -> bytes:
            return sent.get(timeout=60)

    def build(ranks: Ranks) -> None:
        with sharing(ranks):
            recipe = Recipe(top_se=0.4, top_osm=0.4)
            patchc.build(
                **paths, out=tmp_path / "fix.patchc", recipe=recipe, values=values, threads=1
            )

    ends = together(2, build, SendingSeat)
    assert [type(end) for end in ends] == [MismatchError, MismatchError]
    assert "se: this component was derived from another base" in str(ends[0])
    assert str(ends[0]) == str(ends[1])
    assert names_of(tmp_path) == before
