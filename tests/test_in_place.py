"""Apply and revert in place: only what changes is written, and a run can always be repeated."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from additive_inputs import write_inputs
from blake3 import blake3
from command_line import run
from forged_patch import parts_of
from second_reader import read_index
from tiny_checkpoints import PatchedModel, Raw, read_model, tree, write_file, write_model

import patchc
from patchc.compiler.steps import Codec
from patchc.dtypes import BY_NAME
from patchc.errors import (
    CheckpointError,
    OutputError,
    PatchFormatError,
    ResultMismatchError,
    StorageError,
    UnsupportedInputError,
    UsageError,
    WrongBaseError,
)
from patchc.hashing import bodies_digest

FIRST = "model-00001-of-00002.safetensors"
SECOND = "model-00002-of-00002.safetensors"
CHANGED = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(4)]
CHUNKS = 8


@dataclass(frozen=True)
class Direction:
    """One of the two verbs, and the model's folders before and after it."""

    name: str
    patch: Path
    source: Path
    target: Path

    def run(self, model: Path | None = None, **options: Any) -> Any:
        verb = patchc.apply if self.name == "apply" else patchc.revert
        return verb(self.patch, model or self.source, in_place=True, **options)

    def back(self, model: Path) -> Any:
        verb = patchc.revert if self.name == "apply" else patchc.apply
        return verb(self.patch, model, in_place=True)


@pytest.fixture(params=["apply", "revert"])
def direction(request: pytest.FixtureRequest, patched: PatchedModel) -> Direction:
    """The two models are known to be on either side; ``source`` is the one that is changed."""
    sides = [patched.base, patched.tuned]
    source, target = sides if request.param == "apply" else sides[::-1]
    return Direction(request.param, patched.patch, source, target)


def _mixed(direction: Direction, folder: Path, shard: str = FIRST) -> Path:
    """A model one shard of which is as after the run."""
    mixed = shutil.copytree(direction.source, folder)
    shutil.copyfile(direction.target / shard, mixed / shard)
    return mixed


def _refused(
    direction: Direction, error: type[Exception], message: str, model: Path | None = None
) -> None:
    """The run fails as told before it writes; names, contents and time stamps stay."""
    parent = direction.patch.parent
    before, stamps = tree(parent), _stamps(model or direction.source)
    with pytest.raises(error, match=message):
        direction.run(model, threads=1)
    assert tree(parent) == before
    assert _stamps(model or direction.source) == stamps


def _stamps(model: Path) -> dict[str, int]:
    paths = [model] if model.is_file() else model.rglob("*")
    return {str(path): path.stat().st_mtime_ns for path in paths}


# Exactness -------------------------------------------------------------------------------------


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
    stamps = _stamps(direction.source)
    report = direction.run()
    assert (report.chunks, report.chunks_kept, report.nbytes, report.files) == (0, CHUNKS, 0, ())
    assert _stamps(direction.source) == stamps


@pytest.mark.parametrize("codec", ["auto", "rice"])
@pytest.mark.parametrize("dtype", BY_NAME)
def test_every_dtype(tmp_path: Path, direction: Direction, dtype: str, codec: Codec) -> None:
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
        written.append((offset, len(data)))
        return pwrite(descriptor, data, offset)

    source = models[direction.name == "revert"]
    size = (source / "model.safetensors").stat().st_size
    monkeypatch.setattr(os, "pwrite", record)
    report = Direction(direction.name, patch, source, source).run()
    assert written == [(size - (20_000 - 4 * 4096), 20_000 - 4 * 4096)]
    assert report.nbytes == 20_000 - 4 * 4096


def test_a_chunk_is_durable_before_the_next_is_begun(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    _record(monkeypatch, "pwrite", calls)
    _record(monkeypatch, "fdatasync", calls)
    direction.run(threads=3)
    assert calls == ["pwrite", "fdatasync"] * CHUNKS


def test_what_a_killed_run_wrote_is_durable_before_the_next_chunk(
    tmp_path: Path, direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    mixed = _mixed(direction, tmp_path / "mixed")
    for name in ("fsync", "pwrite"):
        _record(monkeypatch, name, calls)
    direction.run(mixed)
    assert calls == ["fsync"] * 2 + ["pwrite"] * (CHUNKS // 2)
    calls.clear()
    direction.run(mixed)
    assert calls == ["fsync"] * 2


def _record(monkeypatch: pytest.MonkeyPatch, name: str, calls: list[str]) -> None:
    call = getattr(os, name)

    def recorded(*arguments: Any) -> Any:
        calls.append(name)
        return call(*arguments)

    monkeypatch.setattr(os, name, recorded)


def test_progress_of_both_passes(direction: Direction) -> None:
    events: list[Any] = []
    direction.run(progress=events.append)
    look = [event for event in events if event.stage == "verify"]
    write = [event for event in events if event.stage == direction.name]
    assert events == look + write
    assert [event.done for event in look] == [10_000 * (i + 1) for i in range(6)]
    assert [event.done for event in write][-1] == 40_000 == write[0].total
    assert len(write) == CHUNKS


def test_dry_run_writes_nothing(direction: Direction) -> None:
    before, stamps = tree(direction.source), _stamps(direction.source)
    report = direction.run(dry_run=True)
    assert tree(direction.source) == before
    assert _stamps(direction.source) == stamps
    assert report.dry_run
    assert (report.chunks, report.nbytes) == (CHUNKS, 40_000)
    assert report.files == (direction.source / FIRST, direction.source / SECOND)


# Interrupted runs ------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
import patchc

verb, patch, model, number, share = sys.argv[1:]
pwrite, calls = os.pwrite, iter(range(1000))

def kill(descriptor, data, offset):
    if next(calls) == int(number):
        pwrite(descriptor, data[: int(len(data) * float(share))], offset)
        os.kill(os.getpid(), signal.SIGKILL)
    return pwrite(descriptor, data, offset)

os.pwrite = kill
getattr(patchc, verb)(patch, model, in_place=True, threads=2)
"""


def _kill(direction: Direction, number: int, share: float) -> None:
    """A run that is killed outright at its write ``number``, after a share of that chunk."""
    command = [sys.executable, "-c", KILLED, direction.name, str(direction.patch)]
    killed = subprocess.run(
        [*command, str(direction.source), str(number), str(share)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr


@pytest.mark.parametrize("number", [0, 3, CHUNKS - 1])
@pytest.mark.parametrize("share", [0, 1])
def test_a_killed_run_is_repeated(direction: Direction, number: int, share: int) -> None:
    wanted = tree(direction.target)
    _kill(direction, number, share)
    done = number + share
    report = direction.run()
    assert tree(direction.source) == wanted
    assert (report.chunks, report.chunks_kept) == (CHUNKS - done, done)


STOPPED = """
import os, signal
from patchc.cli.main import main

pwrite = os.pwrite

def stop(descriptor, data, offset):
    count = pwrite(descriptor, data[: len(data) // 2 + 1], offset)
    os.pwrite = pwrite
    os.kill(os.getpid(), signal.{name})
    return count

signal.signal(signal.{name}, signal.SIG_DFL)  # whatever runs the tests may ignore it
{before}
os.pwrite = stop
main()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_does_not_tear_a_chunk(direction: Direction, name: str) -> None:
    before = tree(direction.source)
    ended = _stopped(direction, name)
    assert ended.returncode == 130
    assert "run again, goes on" in ended.stderr
    assert tree(direction.source) != before
    direction.back(direction.source)
    assert tree(direction.source) == before


TWICE = """
close = os.close

def interrupt_again(descriptor):
    close(descriptor)
    if os.pwrite is pwrite:
        os.kill(os.getpid(), signal.SIGINT)

os.close = interrupt_again
"""


def test_a_second_interrupt_says_the_same_as_the_first(direction: Direction) -> None:
    """It comes while the files are closed; all of the model's shards are."""
    ended = _stopped(direction, "SIGTERM", TWICE)
    assert ended.returncode == 130, ended.stderr
    assert f"{direction.source} may be partly patched" in ended.stderr
    assert "nothing was left" not in ended.stderr
    direction.run()
    assert tree(direction.source) == tree(direction.target)


def test_without_a_terminal_a_lost_one_is_of_no_account(direction: Direction) -> None:
    ended = _stopped(direction, "SIGHUP", "signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    assert ended.returncode == 0, ended.stderr
    assert tree(direction.source) == tree(direction.target)


def _stopped(direction: Direction, name: str, before: str = "") -> subprocess.CompletedProcess[str]:
    script = STOPPED.format(name=name, before=before)
    command = [direction.name, str(direction.patch), str(direction.source), "--in-place"]
    return subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, check=False
    )


def test_a_killed_run_is_taken_back(direction: Direction) -> None:
    before = tree(direction.source)
    _kill(direction, 3, 0)
    report = direction.back(direction.source)
    assert tree(direction.source) == before
    assert (report.chunks, report.chunks_kept) == (3, CHUNKS - 3)


def test_a_torn_chunk_is_refused_by_name(direction: Direction) -> None:
    _kill(direction, 2, 0.5)
    torn = [name for name in CHANGED if _is_torn(direction, name)]
    assert len(torn) == 1
    message = f"'{torn[0]}'.*differs.*Nothing was written.*torn.*intact copy"
    _refused(direction, WrongBaseError, message)


def _is_torn(direction: Direction, name: str) -> bool:
    sides = [direction.target, direction.patch.parent / "untouched"]
    back = patchc.revert if direction.name == "apply" else patchc.apply
    if not sides[1].exists():
        back(direction.patch, direction.target, out=sides[1])
    found, *known = (
        np.frombuffer(read_model(model)[name].data, np.uint16)
        for model in (direction.source, *sides)
    )
    return any(
        not any(np.array_equal(found[cut], other[cut]) for other in known)
        for cut in (slice(0, 4096), slice(4096, None))
    )


@pytest.mark.parametrize("shard", [FIRST, SECOND])
def test_mixed_states(tmp_path: Path, direction: Direction, shard: str) -> None:
    mixed = _mixed(direction, tmp_path / "mixed", shard)
    report = direction.run(mixed)
    assert tree(mixed) == tree(direction.target)
    assert (report.chunks, report.chunks_kept) == (CHUNKS // 2, CHUNKS // 2)
    assert report.files == (mixed / (SECOND if shard == FIRST else FIRST),)


def test_an_interrupt_between_chunks(direction: Direction) -> None:
    before, wanted = tree(direction.source), tree(direction.target)

    def interrupt(event: Any) -> None:
        if event.stage == direction.name and event.done >= 20_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="the same command, run again, goes on"):
        direction.run(progress=interrupt, threads=1)
    assert tree(direction.source) not in (before, wanted)
    direction.run()
    assert tree(direction.source) == wanted


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
@pytest.mark.parametrize("number", [0, 4])
def test_a_write_that_fails(
    direction: Direction, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    wanted = tree(direction.target)
    calls, plain = iter(range(1000)), getattr(os, call)

    def fail(*arguments: Any) -> Any:
        if next(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(*arguments)

    with monkeypatch.context() as patching:
        patching.setattr(os, call, fail)
        with pytest.raises(StorageError, match=r"the disk is full.*partly patched.*goes on"):
            direction.run(threads=1)
    direction.run()
    assert tree(direction.source) == wanted


def test_nothing_is_written_after_a_write_that_failed(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk may be torn then; of those that other threads have ready, none is begun."""
    calls: list[int] = []
    pwrite = os.pwrite

    def fail(descriptor: int, data: Any, offset: int) -> int:
        calls.append(offset)
        if len(calls) % 2:
            return pwrite(descriptor, data[: len(data) // 2], offset)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(StorageError, match=r"cannot write .*Input/output error"):
        direction.run(threads=3)
    assert len(calls) == 2


def test_a_second_interrupt_waits_for_the_write_under_way(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are not closed between two halves of a chunk."""
    begun, go_on = threading.Event(), threading.Event()
    before, pwrite = tree(direction.source), os.pwrite

    def slow(descriptor: int, data: Any, offset: int) -> int:
        count = pwrite(descriptor, data[: len(data) // 2 + 1], offset)
        begun.set()
        go_on.wait(60)
        return count

    def interrupted(_future: Any, _timeout: Any = None) -> Any:
        begun.wait(60)
        threading.Timer(0.2, go_on.set).start()
        raise KeyboardInterrupt

    with monkeypatch.context() as patching:
        patching.setattr(os, "pwrite", slow)

        def interrupt_twice(event: Any) -> None:
            if event.stage == "verify" and event.done == event.total:
                patching.setattr(Future, "result", interrupted)
                patching.setattr(Future, "exception", interrupted)

        with pytest.raises(KeyboardInterrupt):
            direction.run(threads=2, progress=interrupt_twice)
    assert tree(direction.source) != before
    direction.back(direction.source)
    assert tree(direction.source) == before


# Refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [CHANGED[2], "lm_head.weight"])
@pytest.mark.parametrize("mixed", [False, True])
def test_another_model(tmp_path: Path, direction: Direction, name: str, mixed: bool) -> None:
    model = _mixed(direction, tmp_path / "mixed") if mixed else direction.source
    with patchc.open_patch(direction.patch) as patch:
        assert name in patch.index.tensors
    _flip_last_word(model, name)
    _refused(direction, WrongBaseError, f"tensor '{name}'.*Nothing was written", model)


def _flip_last_word(model: Path, name: str) -> None:
    for shard in model.glob("*.safetensors"):
        content = bytearray(shard.read_bytes())
        start = 8 + int.from_bytes(content[:8], "little")
        entry = json.loads(content[8:start]).get(name)
        if entry:
            content[start + entry["data_offsets"][1] - 1] ^= 4
            shard.write_bytes(content)


def test_other_tensors(tmp_path: Path, direction: Direction) -> None:
    model = tmp_path / "half.safetensors"
    shutil.copyfile(direction.source / FIRST, model)
    _refused(direction, WrongBaseError, "the model does not have it", model)


def test_a_damaged_patch_is_found_before_anything_is_written(direction: Direction) -> None:
    with patchc.open_patch(direction.patch) as opened:
        offset = opened.index.chunk(opened.index.tensors[CHANGED[3]].chunks[1]).offset
    content = bytearray(direction.patch.read_bytes())
    content[offset + 1] ^= 0x10
    direction.patch.write_bytes(content)
    _refused(direction, PatchFormatError, f"{CHANGED[3]}.*chunk 1")


def test_a_promise_that_does_not_hold(direction: Direction) -> None:
    """A forged digest of one chunk's outcome: that chunk is not written, and the rest goes back."""
    before, forged = tree(direction.source), direction.patch.parent / "forged.patchc"
    parts = parts_of(direction.patch.read_bytes())
    column = "result_digests" if direction.name == "apply" else "base_digests"
    index = read_index(parts.index, is_update=False)
    digests = list(getattr(index, column))
    digests[5] = bytes(8)
    forged.write_bytes(parts.with_columns(**{column: digests}).assemble())
    bad = Direction(direction.name, forged, direction.source, direction.target)
    with pytest.raises(ResultMismatchError, match=r"tensor .*the outcome is not the promised one"):
        bad.run(threads=1)
    assert tree(direction.source) != before
    direction.back(direction.source)
    assert tree(direction.source) == before


@pytest.mark.parametrize("number", [1, 5])
def test_a_body_that_does_not_decode(direction: Direction, number: int) -> None:
    """A forged patch stops half way; what it changed goes back, which needs no body of the rest."""
    before, forged = tree(direction.source), direction.patch.parent / "forged.patchc"
    parts = parts_of(direction.patch.read_bytes())
    index = read_index(parts.index, is_update=False)
    cuts = np.cumsum([0, *index.lengths])
    bodies = [parts.bodies[a:b] for a, b in pairwise(cuts)]
    bodies[number] = bytes([255]) * len(bodies[number])
    digests = [blake3(body).digest() for body in bodies]
    parts = parts.but(bodies=b"".join(bodies)).with_columns(
        body_digests=[digest[:8] for digest in digests],
        bodies_digest=bodies_digest(b"".join(digests)),
    )
    forged.write_bytes(parts.assemble())
    bad = Direction(direction.name, forged, direction.source, direction.target)
    with pytest.raises(PatchFormatError, match=r"chunk \d.*may be partly patched"):
        bad.run(threads=1)
    assert tree(direction.source) != before
    bad.back(direction.source)
    assert tree(direction.source) == before


def _with_both(direction: Direction) -> Any:
    return direction.run(out=direction.patch.parent / "out")


def _with_neither(direction: Direction) -> Any:
    verb = patchc.apply if direction.name == "apply" else patchc.revert
    return verb(direction.patch, direction.source)


def _without_threads(direction: Direction) -> Any:
    return direction.run(threads=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (_with_both, "exclude each other"),
        (_with_neither, "there is no output"),
        (_without_threads, "threads"),
    ],
)
def test_options(direction: Direction, call: Callable[[Direction], Any], message: str) -> None:
    before = tree(direction.patch.parent)
    with pytest.raises(UsageError, match=message):
        call(direction)
    assert tree(direction.patch.parent) == before


def test_updates_of_more_than_values(tmp_path: Path, direction: Direction) -> None:
    (direction.target / "config.json").write_text('{"model_type": "other"}\n')
    sides = [direction.source, direction.target][:: 1 if direction.name == "apply" else -1]
    files = tmp_path / "files.patchc"
    patchc.diff(*sides, out=files)
    changed = Direction(direction.name, files, direction.source, direction.target)
    _refused(changed, UnsupportedInputError, r"'config\.json'.*-o")
    one, two = np.zeros(3, np.float32), np.zeros(4, np.float32)
    grown = [write_model(tmp_path / f"g{len(w)}", {"w": w}) for w in (one, two)]
    patchc.diff(*grown, out=tmp_path / "grown.patchc")
    changed = Direction(direction.name, tmp_path / "grown.patchc", grown[0], grown[1])
    _refused(changed, UnsupportedInputError, "tensor 'w'.*-o")


def test_a_file_that_may_not_be_written(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two files: the first is not written either."""
    plain = os.open

    def refuse(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & os.O_WRONLY and str(path).endswith(SECOND):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return plain(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", refuse)
    _refused(direction, StorageError, f"cannot write to .*{SECOND}: Permission denied")


def test_a_hard_link_is_refused(tmp_path: Path, direction: Direction) -> None:
    os.link(direction.source / SECOND, tmp_path / "other-name")
    _refused(direction, OutputError, f"{SECOND} has 2 names")


def test_symbolic_links_are_followed_and_named(tmp_path: Path, direction: Direction) -> None:
    blob = tmp_path / "blob"
    (direction.source / FIRST).rename(blob)
    (direction.source / FIRST).symlink_to(blob)
    report = direction.run()
    assert (direction.source / FIRST).is_symlink()
    assert report.files == (blob, direction.source / SECOND)
    assert blob.read_bytes() == (direction.target / FIRST).read_bytes()


def test_a_model_that_changes_meanwhile(direction: Direction) -> None:
    def touch(event: Any) -> None:
        if event.done == event.total:
            with (direction.source / SECOND).open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"\1")

    with pytest.raises(CheckpointError, match=f"{SECOND}: was changed while in use"):
        direction.run(progress=touch, threads=1)


def test_a_file_replaced_meanwhile(tmp_path: Path, direction: Direction) -> None:
    def swap(event: Any) -> None:
        if event.stage == "verify" and event.done == event.total:
            shutil.copyfile(direction.source / FIRST, tmp_path / "copy")
            (tmp_path / "copy").replace(direction.source / FIRST)

    before = tree(direction.source)
    with pytest.raises(CheckpointError, match=f"{FIRST}: was replaced while in use"):
        direction.run(progress=swap)
    assert tree(direction.source) == before


def test_no_partial_files_and_no_new_names(direction: Direction) -> None:
    names = sorted(path.name for path in direction.patch.parent.rglob("*"))
    direction.run()
    assert sorted(path.name for path in direction.patch.parent.rglob("*")) == names


# Commands --------------------------------------------------------------------------------------


def test_the_commands(direction: Direction) -> None:
    wanted = tree(direction.target)
    command = (direction.name, direction.patch, direction.source, "--in-place")
    code, out, _ = run(*command, "--dry-run")
    assert code == 0
    assert f"would {direction.name} in place" in out
    code, out, _ = run(*command, "--json")
    assert code == 0
    report = json.loads(out)
    assert (report["chunks"], report["chunks_kept"], report["nbytes"]) == (CHUNKS, 0, 40_000)
    assert report["files"] == [str(direction.source / name) for name in (FIRST, SECOND)]
    assert tree(direction.source) == wanted
    code, out, _ = run(*command)
    assert code == 0
    assert "nothing to do" in out
    code, _, err = run(*command, "-o", direction.patch.parent / "out")
    assert code == UsageError.exit_code
    assert "exclude each other" in err


def test_a_partly_patched_model_by_commands(tmp_path: Path, direction: Direction) -> None:
    mixed = _mixed(direction, tmp_path / "mixed")
    code, _, err = run("verify", direction.patch, mixed)
    assert code == 10
    assert "run it again" in err
    code, out, _ = run(direction.name, direction.patch, mixed, "--in-place", "--threads", 1)
    assert code == 0
    assert f"{CHUNKS // 2} were done before" in out
    assert tree(mixed) == tree(direction.target)


def test_an_interrupted_command_says_how_to_go_on(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fdatasync", interrupt)
    code, _, err = run(direction.name, direction.patch, direction.source, "--in-place")
    assert code == 130
    assert "run again, goes on" in err
    assert "nothing was left" not in err


def test_additive_values_are_refused(tmp_path: Path, direction: Direction) -> None:
    inputs = write_inputs(tmp_path / "additive")
    patch = tmp_path / "additive.patchc"
    parts = {part: inputs.paths[part] for part in ("se", "osm")}
    patchc.build(inputs.paths["base"], **parts, out=patch, values="additive")
    model = inputs.paths["base"]
    message = "add them twice" if direction.name == "apply" else "cannot be taken back"
    _refused(Direction(direction.name, patch, model, model), UnsupportedInputError, message)
