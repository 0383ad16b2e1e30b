"""Apply and revert in place: only what changes is written, and the rest stays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_place_directions import (
    CHUNKS,
    FIRST,
    SECOND,
    Direction,
    is_shard,
    journal_of,
    partly_changed,
    stamps_of,
)
from tiny_checkpoints import PatchedModel, Raw, tree, write_file, write_model

import patchc
from patchc.compiler.steps import Codec
from patchc.dtypes import BY_NAME
from patchc.patching import pending_groups


@pytest.mark.parametrize(("codec", "threads"), [("auto", 1), ("auto", 3), ("rice", 2)])
def test_the_model_becomes_the_other_and_back(
    patched: PatchedModel, direction: Direction, codec: Codec, threads: int
) -> None:
    patched.patch.unlink()
    patchc.diff(patched.base, patched.tuned, out=patched.patch, chunk_bits=12, codec=codec)
    before, wanted = tree(direction.source), tree(direction.target)
    report = direction.run(threads=threads)
    assert tree(direction.source) == wanted
    assert (report.chunks, report.chunks_kept, report.nbytes) == (CHUNKS, 0, 4 * 10_000)
    assert report.files == (direction.source / FIRST, direction.source / SECOND)
    assert (report.tensors, report.changed_tensors, report.dry_run) == (6, 4, False)
    direction.back(direction.source)
    assert tree(direction.source) == before


def test_a_second_run_has_nothing_to_do(direction: Direction) -> None:
    direction.run()
    stamps = stamps_of(direction.source)
    report = direction.run()
    assert (report.chunks, report.chunks_kept, report.nbytes, report.files) == (0, CHUNKS, 0, ())
    assert stamps_of(direction.source) == stamps


@pytest.mark.parametrize("codec", ["auto", "rice"])
@pytest.mark.parametrize("dtype", BY_NAME)
def test_every_dtype_changes_and_returns(
    tmp_path: Path, direction: Direction, dtype: str, codec: Codec
) -> None:
    """Words of every width, in a file of its own; random bytes and a last chunk that is short."""
    kind = BY_NAME[dtype]
    rng = np.random.default_rng(kind.code)
    count = 9000 * kind.word_bits // kind.bits
    before, after = (_raw_file(tmp_path / name, kind, count, rng) for name in ("a", "b"))
    patch = tmp_path / "raw.patchc"
    patchc.diff(before, after, out=patch, chunk_bits=12, codec=codec)
    source, target = (before, after) if direction.name == "apply" else (after, before)
    wanted = target.read_bytes()
    Direction(direction.name, patch, source, target).run()
    assert source.read_bytes() == wanted


def _raw_file(path: Path, kind: Any, count: int, rng: np.random.Generator) -> Path:
    data = rng.bytes(9000 * kind.word_bytes)
    return write_file(
        path, {"w": Raw(kind.name, (count,), data), "none": Raw(kind.name, (0,), b"")}
    )


def test_only_chunks_that_change_are_written(
    tmp_path: Path, direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One word of the last chunk of one tensor: nothing else of the model is touched."""
    own = {"a": np.arange(20_000, dtype=np.uint8), "b": np.zeros(20_000, np.uint8)}
    other = own | {"b": own["b"].copy()}
    other["b"][-1] = 1
    models = [write_model(tmp_path / name, held) for name, held in (("m", own), ("n", other))]
    patch = tmp_path / "one.patchc"
    patchc.diff(*models, out=patch, chunk_bits=12)
    written: list[tuple[int, int]] = []
    pwrite = os.pwrite

    def record(descriptor: int, data: Any, offset: int) -> int:
        if is_shard(descriptor):
            written.append((offset, len(data)))
        return pwrite(descriptor, data, offset)

    source = models[direction.name == "revert"]
    size = (source / "model.safetensors").stat().st_size
    monkeypatch.setattr(os, "pwrite", record)
    report = Direction(direction.name, patch, source, source).run()
    assert written == [(size - (20_000 - 4 * 4096), 20_000 - 4 * 4096)]
    assert report.nbytes == 20_000 - 4 * 4096


@pytest.mark.usefixtures("a_chunk_a_group")
def test_what_restores_a_group_is_durable_before_it_is_touched(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the group itself before the next one takes its place in the journal."""
    calls = _recorded(monkeypatch)
    direction.run(threads=3)
    name = direction.source.name
    journal = ["pwrite journal"] * 3 + ["fsync journal"]  # what it holds, where, and the words
    group = [*journal, "pwrite shard", "fdatasync shard"]
    first = [*journal, f"fsync {name}", *group[4:]]
    owner, end = ["pwrite journal"], [f"fsync {name}"]
    assert calls == owner + first + group * (CHUNKS - 1) + end


def test_a_group_is_synced_once(direction: Direction, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _recorded(monkeypatch)
    direction.run(threads=3)
    assert calls.count("pwrite shard") == CHUNKS
    assert calls.count("fsync journal") == 1
    assert calls.count("fdatasync shard") == 2  # of which the model has two


@pytest.mark.parametrize("begun", [False, True])
def test_what_a_killed_run_wrote_is_durable_before_the_next_chunk(
    tmp_path: Path, direction: Direction, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    mixed = partly_changed(direction, tmp_path / "mixed")
    if not begun:
        direction.run(mixed)
    calls = _recorded(monkeypatch)
    direction.run(mixed)
    shards = [call for call in calls if call.endswith("shard")]
    assert shards[:2] == ["fsync shard"] * 2
    assert shards[2:] == begun * (["pwrite shard"] * (CHUNKS // 2) + ["fdatasync shard"])


def test_the_journal_does_not_grow_with_the_model(
    tmp_path: Path, direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as large for a hundred chunks as for two; every word changes."""
    monkeypatch.setattr(pending_groups, "GROUP_BYTES", 6 * 4096)  # of chunks, and of images
    sizes = {}
    for chunks in (2, 100):
        own = {"w": np.arange(4096 * chunks, dtype=np.uint8)}
        models = [
            write_model(tmp_path / f"{chunks}-{name}", {"w": own["w"] ^ changed})
            for name, changed in (("a", 0), ("b", 1))
        ]
        patch = tmp_path / f"{chunks}.patchc"
        patchc.diff(*models, out=patch, chunk_bits=12)
        source = models[direction.name == "revert"]
        seen: list[int] = []

        def look(event: Any, model: Path = source, seen: list[int] = seen) -> None:
            if event.stage == direction.name:
                seen.append(journal_of(model).stat().st_size)

        Direction(direction.name, patch, source, source).run(progress=look)
        sizes[chunks] = max(seen)
    assert 5 * 4096 < sizes[2] < 5 * 4096 + 2048  # a position and a word for each
    assert sizes[100] <= sizes[2] + 4  # digits of the chunks' numbers


def _recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Writes and syncs from now on, each with what it goes to."""
    calls: list[str] = []

    def record(name: str) -> None:
        call = getattr(os, name)

        def recorded(descriptor: int, *arguments: Any) -> Any:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            kinds = {".safetensors": "shard", ".patchc-journal": "journal"}
            kind = kinds.get(path.suffix) or kinds.get(path.name) or path.name
            calls.append(f"{name} {kind}")
            return call(descriptor, *arguments)

        monkeypatch.setattr(os, name, recorded)

    for name in ("pwrite", "fsync", "fdatasync"):
        record(name)
    return calls


def test_progress_is_told_of_both_passes(direction: Direction) -> None:
    events: list[Any] = []
    direction.run(progress=events.append)
    look = [event for event in events if event.stage == "verify"]
    write = [event for event in events if event.stage == direction.name]
    assert events == look + write
    assert [event.done for event in look] == [10_000 * (i + 1) for i in range(6)]
    assert [event.done for event in write][-1] == 40_000 == write[0].total
    assert len(write) == CHUNKS


def test_a_single_file_with_the_longest_name(tmp_path: Path, direction: Direction) -> None:
    """Its journal lies beside it, under a shorter name."""
    name = "ä" * 120 + ".safetensors"
    models = [
        write_file(tmp_path / part / name, {"w": np.full(5000, part == "n", np.uint8)})
        for part in ("m", "n")
    ]
    patch = tmp_path / "one.patchc"
    patchc.diff(*models, out=patch, chunk_bits=12)
    source, target = models if direction.name == "apply" else models[::-1]
    names: set[str] = set()
    Direction(direction.name, patch, source, target).run(
        progress=lambda _event: names.update(path.name for path in source.parent.iterdir())
    )
    assert source.read_bytes() == target.read_bytes()
    assert any(found.startswith(".ä") and found.endswith("patchc-journal") for found in names)
    assert [path.name for path in source.parent.iterdir()] == [name]


def test_dry_run_writes_nothing(direction: Direction) -> None:
    before, stamps = tree(direction.source), stamps_of(direction.source)
    report = direction.run(dry_run=True)
    assert tree(direction.source) == before
    assert stamps_of(direction.source) == stamps
    assert report.dry_run
    assert (report.chunks, report.nbytes) == (CHUNKS, 40_000)
    assert report.files == (direction.source / FIRST, direction.source / SECOND)
