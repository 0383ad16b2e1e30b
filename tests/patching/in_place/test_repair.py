"""A torn model whose journal is gone: copies restore it, and foreign bytes are left alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from in_place_directions import (
    TORN,
    Direction,
    journal_of,
    put,
    refused,
    tear,
)
from tiny_checkpoints import tree

import patchc
from patchc.errors import (
    CheckpointError,
    UsageError,
    WrongBaseError,
)


@pytest.fixture
def without_journal(cut_off: Direction) -> Direction:
    tear(cut_off, 1)
    journal_of(cut_off.source).unlink()
    return cut_off


def test_without_its_journal_a_torn_chunk_is_refused_by_name(without_journal: Direction) -> None:
    refused(without_journal, WrongBaseError, f"{TORN}.*may be torn.*--repair-from.*Nothing was")
    code, _, err = run("verify", without_journal.patch, without_journal.source)
    assert code == WrongBaseError.exit_code
    assert TORN in err
    assert "may be torn: run again with --repair-from" in " ".join(err.split())


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_copy_of_either_side_restores_it(
    without_journal: Direction, copies: dict[str, Path], side: str
) -> None:
    copy = copies["target"]
    if side == "source":
        copy = _intact_source(without_journal, copies)
    held = tree(copy)
    report = without_journal.run(repair_from=copy)
    assert tree(without_journal.source) == tree(without_journal.target)
    assert report.chunks_restored == 1
    assert tree(copy) == held


def _intact_source(direction: Direction, copies: dict[str, Path]) -> Path:
    back = patchc.revert if direction.name == "apply" else patchc.apply
    out = direction.patch.parent / "intact"
    back(direction.patch, copies["target"], out=out)
    return out


def test_a_snapshot_of_links_restores_it(without_journal: Direction, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0f"
    blobs = snapshot.parents[1] / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(without_journal.target.glob("*.*")):
        shutil.copyfile(path, blobs / str(number))
        (snapshot / path.name).symlink_to(blobs / str(number))
    code, out, err = run(
        without_journal.name,
        without_journal.patch,
        without_journal.source,
        "--in-place",
        "--repair-from",
        snapshot,
    )
    assert code == 0, err
    assert "restored" in out
    assert tree(without_journal.source) == tree(without_journal.target)


def test_a_copy_does_not_restore_what_is_foreign(
    without_journal: Direction, copies: dict[str, Path]
) -> None:
    put(without_journal.source, TORN, 100, b"\xf1\xf2\xf3")
    before = tree(without_journal.source)
    with pytest.raises(WrongBaseError, match=r"not torn but foreign.*Nothing was written"):
        without_journal.run(repair_from=copies["target"])
    assert tree(without_journal.source) == before


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_copy_that_changes_meanwhile_restores_nothing(
    without_journal: Direction, copies: dict[str, Path], side: str
) -> None:
    """It was looked at, and is another when the chunk is restored."""
    copy = _intact_source(without_journal, copies) if side == "source" else copies["target"]
    before = tree(without_journal.source)

    def change(event: Any) -> None:
        if event.done == event.total:
            put(copy, TORN, 100, b"\xf1\xf2\xf3")

    with pytest.raises(CheckpointError, match="was changed while in use"):
        without_journal.run(repair_from=copy, progress=change)
    assert tree(without_journal.source) == before


def test_a_copy_that_is_torn_too(without_journal: Direction, copies: dict[str, Path]) -> None:
    put(copies["target"], TORN, 100, b"\xf1\xf2\xf3")
    with pytest.raises(WrongBaseError, match="The copy to repair from differs there too"):
        without_journal.run(repair_from=copies["target"])


def test_repair_and_resume_are_for_runs_in_place(direction: Direction, tmp_path: Path) -> None:
    verb = patchc.apply if direction.name == "apply" else patchc.revert
    with pytest.raises(UsageError, match="is the model itself"):
        direction.run(repair_from=direction.source)
    for more in ({"resume": True}, {"repair_from": direction.target}):
        with pytest.raises(UsageError, match="add --in-place"):
            verb(direction.patch, direction.source, out=tmp_path / "out", **more)
