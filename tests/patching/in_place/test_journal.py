"""What a run that was cut off leaves: both verbs go on from it, and others pass it by."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from build_inputs import small_inputs
from command_line import run
from in_place_directions import (
    CHANGED,
    CHUNK_BYTES,
    CHUNKS,
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
    PartlyPatchedError,
    StorageError,
    WrongBaseError,
)
from patchc.patching.in_place_journal import InPlaceJournal


@pytest.mark.parametrize("seed", range(4))
def test_torn_chunks_are_restored_by_both_verbs(cut_off: Direction, seed: int) -> None:
    before, wanted = tree(cut_off.source), tree(cut_off.target)
    before.pop(".patchc-journal")
    for number, name in enumerate(CHANGED[:2]):
        tear(cut_off, seed + 10 * number, name)
    state = shutil.copytree(cut_off.source, cut_off.patch.parent / "state")
    report = cut_off.run(resume=True)
    assert tree(cut_off.source) == wanted
    assert (report.chunks, report.chunks_restored) == (CHUNKS, 2)
    report = cut_off.back(state)
    assert tree(state) == before
    assert (report.chunks, report.chunks_restored) == (0, 2)


def test_verify_and_copies_say_what_happened(cut_off: Direction, tmp_path: Path) -> None:
    code, out, _ = run("verify", cut_off.patch, cut_off.source)
    assert code == 0
    assert "of an interrupted run in place" in out
    tear(cut_off, 1)
    code, out, err = run("verify", cut_off.patch, cut_off.source)
    assert code == 10
    assert "1 of them, which the journal restores" in out
    assert "apply --in-place completes it, revert --in-place takes it back" in err
    report = patchc.verify(cut_off.patch, cut_off.source)
    assert (report.state, report.chunks_torn, report.journal) == ("partly patched", 1, True)
    code, _, err = run(cut_off.name, cut_off.patch, cut_off.source, "-o", tmp_path / "out")
    assert code == PartlyPatchedError.exit_code
    assert f"{cut_off.name} --in-place with 'update.patchc'" in err
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_restored(cut_off: Direction) -> None:
    tear(cut_off, 1)
    code, out, _ = run(cut_off.name, cut_off.patch, cut_off.source, "--in-place", "--resume")
    assert code == 0
    assert "1 torn chunks of an interrupted run" in out
    assert tree(cut_off.source) == tree(cut_off.target)


@pytest.mark.parametrize("offset", [0, 700, CHUNK_BYTES - 1])
def test_a_foreign_byte_is_not_written_over(cut_off: Direction, offset: int) -> None:
    torn = tear(cut_off, 1)
    put(cut_off.source, TORN, offset, bytes([torn[offset] ^ 0xC0]))
    wrong = "(not torn but foreign|chunk may be torn)"  # where the image says nothing of the byte
    refused(cut_off, WrongBaseError, f"{TORN}.*{wrong}.*Nothing was written")


def test_a_foreign_tensor_is_not_written_over(cut_off: Direction) -> None:
    tear(cut_off, 1)
    put(cut_off.source, "lm_head.weight", 8, b"\1\2\3")
    refused(cut_off, WrongBaseError, "lm_head.weight.*Nothing was written")


def test_a_run_of_another_patch_is_ended_first(cut_off: Direction, tmp_path: Path) -> None:
    tear(cut_off, 1)
    other = tmp_path / "other.patchc"
    inputs = [tmp_path / "x", tmp_path / "y"]
    for path, seed in zip(inputs, (1, 2), strict=True):
        shutil.copytree(cut_off.target, path)
        put(path, TORN, 4 * seed, b"\1\2")
    patchc.diff(*inputs, out=other, chunk_bits=12)
    foreign = Direction(cut_off.name, other, cut_off.source, cut_off.target)
    refused(
        foreign,
        PartlyPatchedError,
        rf"{cut_off.name} --in-place with 'update\.patchc' \(root '[0-9a-f]{{64}}'\) was cut off",
    )
    cut_off.run()
    assert tree(cut_off.source) == tree(cut_off.target)


def test_other_commands_name_the_run_that_was_cut_off(cut_off: Direction, tmp_path: Path) -> None:
    tear(cut_off, 1)
    other = tmp_path / "other.patchc"
    put(shutil.copytree(cut_off.target, tmp_path / "x"), TORN, 4, b"\1\2")
    patchc.diff(cut_off.target, tmp_path / "x", out=other, chunk_bits=12)
    code, _, err = run("verify", other, cut_off.source)
    assert code == WrongBaseError.exit_code
    assert "with 'update.patchc'" in err
    code, _, err = run("apply", other, cut_off.source, "-o", tmp_path / "out")
    assert code == PartlyPatchedError.exit_code
    assert "with 'update.patchc'" in err


def test_a_journal_that_cannot_be_read_stays(
    cut_off: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    tear(cut_off, 1)
    pread = os.pread

    def fail(descriptor: int, size: int, offset: int) -> bytes:
        if offset == 512:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(descriptor, size, offset)

    with monkeypatch.context() as patching:
        patching.setattr(os, "pread", fail)
        refused(cut_off, StorageError, r"cannot read .*\.patchc-journal: Input/output error")
    cut_off.run()
    assert tree(cut_off.source) == tree(cut_off.target)


@pytest.mark.parametrize("number", ["1e999", "-5", str(10**40), '"x"', "null"])
def test_a_journal_of_impossible_sizes_is_none(cut_off: Direction, number: str) -> None:
    journal = journal_of(cut_off.source)
    facts = json.dumps({"root": "0", "patch": "\x1b[2J", "target": "base"})[:-1]
    listed = (facts + f', "chunks": [["{TORN}", 0, {number}], ["{TORN}", 1, 8]]}}').encode()
    head = b"patchcJ1" + blake3(listed).digest() + len(listed).to_bytes(4, "little")
    journal.write_bytes(journal.read_bytes()[:512] + head + listed)
    assert patchc.verify(cut_off.patch, cut_off.source).state in ("base", "patched")
    cut_off.run()
    assert tree(cut_off.source) == tree(cut_off.target)


def test_lists_that_are_long_make_more_groups(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[int] = []
    record = InPlaceJournal.record

    def count(journal: InPlaceJournal, images: Any) -> None:
        records.append(len(images))
        record(journal, images)

    monkeypatch.setattr(InPlaceJournal, "record", count)
    monkeypatch.setattr("patchc.patching.pending_groups.MOST_LISTED", 250)
    direction.run()
    assert max(records) == 2
    assert tree(direction.source) == tree(direction.target)


def test_a_journal_of_no_use_goes_with_the_next_run(cut_off: Direction) -> None:
    """Its chunks are whole; the model has come to the target in another way."""
    for shard in cut_off.target.glob("*.safetensors"):
        shutil.copyfile(shard, cut_off.source / shard.name)
    report = cut_off.run()
    assert (report.chunks, report.chunks_restored) == (0, 0)
    assert tree(cut_off.source) == tree(cut_off.target)


def test_other_commands_pass_a_journal_by(cut_off: Direction, tmp_path: Path) -> None:
    verb = patchc.apply if cut_off.name == "apply" else patchc.revert
    verb(cut_off.patch, cut_off.source, out=tmp_path / "out")
    assert tree(tmp_path / "out") == tree(cut_off.target)
    report = patchc.diff(cut_off.source, cut_off.target, out=tmp_path / "again.patchc")
    assert report.entries
    with patchc.open_patch(tmp_path / "again.patchc") as patch:
        assert not patch.index.files


@pytest.mark.parametrize("name", [".output.patchc-lock", ".output.0123abcd.moves"])
def test_what_a_killed_run_left_of_an_output_is_no_part_of_a_model(
    direction: Direction, tmp_path: Path, name: str
) -> None:
    (direction.source / name).touch()
    (direction.source / ".gitattributes").touch()
    verb = patchc.apply if direction.name == "apply" else patchc.revert
    verb(direction.patch, direction.source, out=tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert name not in names
    assert ".gitattributes" in names


def test_a_build_passes_a_journal_by(tmp_path: Path) -> None:
    paths = small_inputs().write(tmp_path)
    outs = [tmp_path / "one.patchc", tmp_path / "two.patchc"]
    for out in outs:
        patchc.build(paths["base"], se=paths["se"], osm=paths["osm"], out=out)
        journal_of(paths["base"]).write_bytes(bytes(5000))
    assert outs[0].read_bytes() == outs[1].read_bytes()
