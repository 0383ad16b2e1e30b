"""``status`` of a model after a run in place was cut off: its journal tells of torn chunks."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run
from in_place_directions import CHANGED, CHUNK_BYTES, Direction, put, tear
from tiny_checkpoints import read_model, tree

import patchc
from patchc.errors import PartlyPatchedError


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


def test_a_copy_of_a_torn_model_names_the_run(cut_off: Direction, tmp_path: Path) -> None:
    """Also where a chunk before the torn one tells that the model has to be looked at whole."""
    written = read_model(cut_off.target)[CHANGED[0]].data[:CHUNK_BYTES]
    put(cut_off.source, CHANGED[0], 0, written)
    tear(cut_off, 1)
    verb = patchc.apply if cut_off.name == "apply" else patchc.revert
    with pytest.raises(PartlyPatchedError, match="was cut off there"):
        verb(cut_off.patch, cut_off.source, out=tmp_path / "out", threads=1)
    assert not (tmp_path / "out").exists()
