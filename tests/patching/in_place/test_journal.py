"""What a run that was cut off leaves: torn chunks are restored, foreign ones never written over."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from build_inputs import small_inputs
from command_line import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_place_directions import CHANGED, CHUNKS, Direction, journal_of, put, refused
from tiny_checkpoints import read_model, tree

import patchc
from patchc.checkpoint import InPlaceWriter
from patchc.errors import (
    CheckpointError,
    PartlyPatchedError,
    StorageError,
    UsageError,
    WrongBaseError,
)
from patchc.patching.in_place_journal import InPlaceJournal

NAME = CHANGED[1]
CHUNK = 2 * 4096


class _CutOffError(Exception):
    """In place of a power loss."""


@pytest.fixture
def copies(direction: Direction, tmp_path: Path) -> dict[str, Path]:
    """Intact copies of both models."""
    models = {"source": direction.source, "target": direction.target}
    return {name: shutil.copytree(path, tmp_path / f"copy-{name}") for name, path in models.items()}


@pytest.fixture
def cut_off(direction: Direction, monkeypatch: pytest.MonkeyPatch) -> Direction:
    """The run has filled its journal and touched nothing yet."""
    with monkeypatch.context() as patching:
        patching.setattr(InPlaceWriter, "write_words", _raise(_CutOffError))
        with pytest.raises(_CutOffError):
            direction.run()
    assert journal_of(direction.source).exists()
    return direction


def _raise(error: type[Exception]) -> Any:
    def fail(*_arguments: Any) -> None:
        raise error

    return fail


def _tear(direction: Direction, seed: int, name: str = NAME) -> bytes:
    """Write some sectors of the first chunk of a tensor, as a disk may when the power goes."""
    before, after = (
        np.frombuffer(read_model(model)[name].data[:CHUNK], np.uint8).reshape(-1, 512)
        for model in (direction.source, direction.target)
    )
    written = np.random.default_rng(seed).random(len(before)) < 0.5
    torn = np.where(written[:, None], after, before).tobytes()
    assert torn not in (before.tobytes(), after.tobytes())
    put(direction.source, name, 0, torn)
    return torn


@pytest.mark.parametrize("seed", range(4))
def test_torn_chunks_are_restored_by_both_verbs(cut_off: Direction, seed: int) -> None:
    before, wanted = tree(cut_off.source), tree(cut_off.target)
    before.pop(".patchc-journal")
    for number, name in enumerate(CHANGED[:2]):
        _tear(cut_off, seed + 10 * number, name)
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
    _tear(cut_off, 1)
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
    _tear(cut_off, 1)
    code, out, _ = run(cut_off.name, cut_off.patch, cut_off.source, "--in-place", "--resume")
    assert code == 0
    assert "1 torn chunks of an interrupted run" in out
    assert tree(cut_off.source) == tree(cut_off.target)


@pytest.mark.parametrize("offset", [0, 700, CHUNK - 1])
def test_a_foreign_byte_is_not_written_over(cut_off: Direction, offset: int) -> None:
    torn = _tear(cut_off, 1)
    put(cut_off.source, NAME, offset, bytes([torn[offset] ^ 0xC0]))
    wrong = "(not torn but foreign|chunk may be torn)"  # where the image says nothing of the byte
    refused(cut_off, WrongBaseError, f"{NAME}.*{wrong}.*Nothing was written")


def test_a_foreign_tensor_is_not_written_over(cut_off: Direction) -> None:
    _tear(cut_off, 1)
    put(cut_off.source, "lm_head.weight", 8, b"\1\2\3")
    refused(cut_off, WrongBaseError, "lm_head.weight.*Nothing was written")


def test_a_run_of_another_patch_is_ended_first(cut_off: Direction, tmp_path: Path) -> None:
    _tear(cut_off, 1)
    other = tmp_path / "other.patchc"
    inputs = [tmp_path / "x", tmp_path / "y"]
    for path, seed in zip(inputs, (1, 2), strict=True):
        shutil.copytree(cut_off.target, path)
        put(path, NAME, 4 * seed, b"\1\2")
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
    _tear(cut_off, 1)
    other = tmp_path / "other.patchc"
    put(shutil.copytree(cut_off.target, tmp_path / "x"), NAME, 4, b"\1\2")
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
    _tear(cut_off, 1)
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
    listed = (facts + f', "chunks": [["{NAME}", 0, {number}], ["{NAME}", 1, 8]]}}').encode()
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


# A model whose journal is gone.


@pytest.fixture
def without_journal(cut_off: Direction) -> Direction:
    _tear(cut_off, 1)
    journal_of(cut_off.source).unlink()
    return cut_off


def test_without_its_journal_a_torn_chunk_is_refused_by_name(without_journal: Direction) -> None:
    refused(without_journal, WrongBaseError, f"{NAME}.*may be torn.*--repair-from.*Nothing was")
    code, _, err = run("verify", without_journal.patch, without_journal.source)
    assert code == WrongBaseError.exit_code
    assert NAME in err
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
    put(without_journal.source, NAME, 100, b"\xf1\xf2\xf3")
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
            put(copy, NAME, 100, b"\xf1\xf2\xf3")

    with pytest.raises(CheckpointError, match="was changed while in use"):
        without_journal.run(repair_from=copy, progress=change)
    assert tree(without_journal.source) == before


def test_a_copy_that_is_torn_too(without_journal: Direction, copies: dict[str, Path]) -> None:
    put(copies["target"], NAME, 100, b"\xf1\xf2\xf3")
    with pytest.raises(WrongBaseError, match="The copy to repair from differs there too"):
        without_journal.run(repair_from=copies["target"])


def test_repair_and_resume_are_for_runs_in_place(direction: Direction, tmp_path: Path) -> None:
    verb = patchc.apply if direction.name == "apply" else patchc.revert
    with pytest.raises(UsageError, match="is the model itself"):
        direction.run(repair_from=direction.source)
    for more in ({"resume": True}, {"repair_from": direction.target}):
        with pytest.raises(UsageError, match="add --in-place"):
            verb(direction.patch, direction.source, out=tmp_path / "out", **more)


# Room and permission for the journal.


def test_no_room_for_the_journal(direction: Direction, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(direction.source)._replace(free=3_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    refused(direction, StorageError, r"\.patchc-journal: it needs .* 3,000 free")


@pytest.mark.parametrize("call", ["pwrite", "posix_fallocate"])
def test_the_disk_is_full_when_the_journal_is_written(
    direction: Direction, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    refused(direction, StorageError, "the disk is full")


def test_a_file_system_that_cannot_reserve_is_served(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    direction.run()
    assert tree(direction.source) == tree(direction.target)


def test_a_journal_that_cannot_be_removed_is_no_failure(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, **_options: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patching:
        patching.setattr(os, "unlink", refuse)
        direction.run()
    wanted = tree(direction.target)
    assert {**tree(direction.source), **wanted} == tree(direction.source)
    assert direction.run().chunks == 0
    assert tree(direction.source) == wanted


def test_a_read_only_model_is_refused_before_it_is_read(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = os.open

    def refuse(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & (os.O_CREAT | os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return plain(path, flags, *more, **options)

    def unread(_event: object) -> None:
        raise AssertionError

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match="the file system is read-only"):
        direction.run(progress=unread)


def test_a_dry_run_looks_for_permission(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_arguments: False)
    with pytest.raises(StorageError, match="keeps its journal"):
        direction.run(dry_run=True)


# A journal from a stranger.


def _damaged(content: bytes) -> Iterator[bytes]:
    yield from (content[:size] for size in (0, 100, 512, 530, 560, 700, len(content) - 1))
    for place in (512, 520, 552, 553, 556, 600):
        yield content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def test_a_damaged_journal_changes_nothing_for_whole_chunks(cut_off: Direction) -> None:
    journal = journal_of(cut_off.source)
    shards = {path: path.read_bytes() for path in cut_off.source.glob("*.safetensors")}
    for content in _damaged(journal.read_bytes()):
        journal.write_bytes(content)
        assert patchc.verify(cut_off.patch, cut_off.source).state in ("base", "patched")
        cut_off.run()
        assert tree(cut_off.source) == tree(cut_off.target)
        for path, whole in shards.items():
            path.write_bytes(whole)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_no_bytes_of_a_journal_break_a_run(cut_off: Direction, data: st.DataObject) -> None:
    """A torn model with any journal is restored to a side exactly, or refused as it is."""
    journal, before = journal_of(cut_off.source), tree(cut_off.source)
    saved = journal.read_bytes()
    torn = _tear(cut_off, 1)
    place = data.draw(st.integers(0, 3000) | st.integers(0, len(saved)))
    noise = data.draw(st.binary(min_size=1, max_size=40))
    journal.write_bytes(saved[:place] + noise + saved[place + len(noise) :])
    try:
        cut_off.run()
        assert tree(cut_off.source) == tree(cut_off.target)
    except WrongBaseError:
        assert read_model(cut_off.source)[NAME].data[:CHUNK] == torn
    finally:
        for name, (_, content) in before.items():
            (cut_off.source / name).write_bytes(content)


@pytest.mark.parametrize("kind", ["folder", "link", "hard link"])
def test_something_else_in_the_journals_place(
    direction: Direction, tmp_path: Path, kind: str
) -> None:
    journal, other = journal_of(direction.source), tmp_path / "other"
    other.write_bytes(b"precious")
    if kind == "folder":
        journal.mkdir()
    elif kind == "link":
        journal.symlink_to(other)
    else:
        os.link(other, journal)
    with pytest.raises(patchc.PatchcError, match=r"\.patchc-journal"):
        direction.run()
    assert other.read_bytes() == b"precious"
