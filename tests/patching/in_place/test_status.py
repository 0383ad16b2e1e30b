"""``status`` of a model after a run in place was cut off: its journal tells of torn chunks."""

from __future__ import annotations

from command_line import run
from in_place_directions import Direction, tear
from tiny_checkpoints import tree

import patchc


def test_a_run_that_was_cut_off_is_told(cut_off: Direction) -> None:
    tear(cut_off, 1)
    before = tree(cut_off.source)
    report = patchc.status(cut_off.source, [cut_off.patch])
    assert report.patches[0].state == "partly patched"
    assert "was cut off there" in report.interrupted
    code, out, err = run("status", cut_off.source, cut_off.patch)
    assert code == 0
    assert "partly patched: run apply or revert --in-place" in out
    assert "was cut off there" in err
    assert tree(cut_off.source) == before


def test_another_patch_s_run_is_told_too(cut_off: Direction) -> None:
    """A copy with a name is another file, by its root: only the one that began goes on."""
    tear(cut_off, 1)
    named = cut_off.patch.with_name("named.patchc")
    patchc.annotate(cut_off.patch, name="other", out=named)
    report = patchc.status(cut_off.source, [named])
    assert report.patches[0].state == "neither"
    assert cut_off.patch.name in report.interrupted
