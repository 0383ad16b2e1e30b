"""Apply and revert: exact, whole or not at all, and never to the wrong model."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forged_patch import parts_of
from tiny_checkpoints import (
    PatchedModel,
    Raw,
    Tensors,
    normal,
    nudge,
    read_file,
    tree,
    write_file,
    write_model,
)

import patchc
from patchc.dtypes import BY_NAME
from patchc.errors import (
    AlreadyPatchedError,
    CheckpointError,
    NotPatchedError,
    OutputError,
    PartlyPatchedError,
    PatchcError,
    PatchFormatError,
    ResultMismatchError,
    StorageError,
    UsageError,
    WrongBaseError,
)

FIRST = "model-00001-of-00002.safetensors"
SECOND = "model-00002-of-00002.safetensors"
CHANGED = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(4)]
UNCHANGED = ["lm_head.weight", "model.norm.weight"]


@dataclass(frozen=True)
class Direction:
    """One of the two verbs, from the model that it takes to the one that it writes."""

    name: str
    patch: Path
    source: Path
    target: Path
    source_tensors: Tensors
    target_tensors: Tensors

    def run(self, out: Path, model: Path | None = None, **options: Any) -> Any:
        verb = patchc.apply if self.name == "apply" else patchc.revert
        return verb(self.patch, model or self.source, out=out, **options)


class Failing:
    """A system call that fails the ``number``-th time that it is called, from 0."""

    def __init__(self, call: Callable[..., Any], number: int, code: int) -> None:
        self._call = call
        self._left = count(number, -1)
        self._code = code

    def __call__(self, *arguments: Any) -> Any:
        if next(self._left) == 0:
            raise OSError(self._code, os.strerror(self._code))
        return self._call(*arguments)


@pytest.fixture(params=["apply", "revert"])
def direction(request: pytest.FixtureRequest, patched: PatchedModel) -> Direction:
    sides = [
        (patched.base, patched.base_tensors),
        (patched.tuned, patched.tuned_tensors),
    ]
    (source, before), (target, after) = sides if request.param == "apply" else sides[::-1]
    return Direction(request.param, patched.patch, source, target, before, after)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _refused(
    direction: Direction, error: type[Exception], message: str, model: Path | None = None
) -> None:
    """The run fails as told, leaves nothing at or beside the output, and changes no input."""
    model = model or direction.source
    parent = direction.patch.parent
    names, before = _names(parent), tree(model)
    with pytest.raises(error, match=message):
        direction.run(parent / "out", model, threads=1)
    assert _names(parent) == names
    assert tree(model) == before


# Exactness -------------------------------------------------------------------------------------


def test_writes_the_other_model_byte_for_byte(tmp_path: Path, direction: Direction) -> None:
    before = tree(direction.source)
    report = direction.run(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(direction.target)
    assert tree(direction.source) == before
    assert (report.files, report.side_files, report.tensors) == (2, 4, 6)
    assert report.nbytes == sum(path.stat().st_size for path in direction.source.glob("model-*"))
    assert (report.changed_tensors, report.left_out, report.dry_run) == (4, (), False)


@pytest.mark.parametrize("dtype", BY_NAME)
@pytest.mark.parametrize("threads", [1, 3])
def test_every_dtype_there_and_back(tmp_path: Path, dtype: str, threads: int) -> None:
    """Random bytes over several chunks, an empty tensor and, where a word is a byte, a scalar."""
    kind = BY_NAME[dtype]
    rng = np.random.default_rng(kind.code)
    count = 9000 * kind.word_bits // kind.bits
    base: dict[str, Raw] = {}
    tuned: dict[str, Raw] = {}
    for name, shape, words in (("a", (3, count // 3), 9000), ("empty", (0, 4), 0)):
        for model in (base, tuned):
            model[name] = Raw(dtype, shape, rng.bytes(words * kind.word_bytes))
    base["same"] = tuned["same"] = base["a"]
    if kind.bits >= 8:
        for model in (base, tuned):
            model["scalar"] = Raw(dtype, (), rng.bytes(kind.word_bytes))
    folders = [
        write_model(tmp_path / part, tensors, shards=2)
        for part, tensors in (("base", base), ("tuned", tuned))
    ]
    patch = tmp_path / "update.patchc"
    patchc.diff(*folders, out=patch, chunk_bits=12, threads=threads)
    patchc.apply(patch, folders[0], out=tmp_path / "applied", threads=threads)
    assert tree(tmp_path / "applied") == tree(folders[1])
    patchc.revert(patch, tmp_path / "applied", out=tmp_path / "reverted", threads=threads)
    assert tree(tmp_path / "reverted") == tree(folders[0])


def test_header_bytes_order_and_metadata_stay(tmp_path: Path) -> None:
    """A header that no library would write: odd key order, spaces, and metadata of its own."""
    value = np.arange(6, dtype=np.float32)
    header = (
        b'{ "z" : {"shape":[6], "data_offsets":[24,48], "dtype":"F32"},\n'
        b'"__metadata__": {"b":"2", "a":"\xc3\xa9"},'
        b'"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}      '
    )
    start = len(header).to_bytes(8, "little") + header
    base, tuned = tmp_path / "base.safetensors", tmp_path / "tuned.safetensors"
    base.write_bytes(start + value.tobytes() + value.tobytes())
    tuned.write_bytes(start + value.tobytes() + (value + 1).tobytes())
    patchc.diff(base, tuned, out=tmp_path / "update.patchc")
    patchc.apply(tmp_path / "update.patchc", base, out=tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == tuned.read_bytes()


def test_file_modes(tmp_path: Path, direction: Direction) -> None:
    modes = {FIRST: 0o640, SECOND: 0o604, "config.json": 0o755, "assets/chat_template.jinja": 0o400}
    for name, mode in modes.items():
        (direction.source / name).chmod(mode)
    direction.run(tmp_path / "out")
    for name, mode in modes.items():
        assert (tmp_path / "out" / name).stat().st_mode & 0o777 == mode


def test_single_file_keeps_its_mode(tmp_path: Path, direction: Direction) -> None:
    model = write_file(tmp_path / "one.safetensors", direction.source_tensors)
    model.chmod(0o600)
    out = tmp_path / "new" / "other.safetensors"
    report = direction.run(out, model)
    expected = write_file(tmp_path / "expected", direction.target_tensors)
    assert out.read_bytes() == expected.read_bytes()
    assert out.stat().st_mode & 0o777 == 0o600
    assert _names(out.parent) == [out.name]
    assert (report.files, report.side_files) == (1, 0)


def test_resharded_model_keeps_its_own_layout(tmp_path: Path, direction: Direction) -> None:
    reverse = dict(reversed(direction.source_tensors.items()))
    model = write_model(tmp_path / "resharded", reverse, shards=3)
    direction.run(tmp_path / "out", model)
    reverse = dict(reversed(direction.target_tensors.items()))
    assert tree(tmp_path / "out") == tree(write_model(tmp_path / "expected", reverse, shards=3))


def test_tied_weights_stored_twice(tmp_path: Path) -> None:
    before = {name: normal((40, 5), "F16", 1) for name in ("embed.weight", "lm_head.weight")}
    after = {name: nudge(value, 0.3, 2) for name, value in before.items()}
    folders = [write_model(tmp_path / str(i), model) for i, model in enumerate((before, after))]
    patch = tmp_path / "update.patchc"
    patchc.diff(*folders, out=patch)
    patchc.apply(patch, folders[0], out=tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folders[1])
    once = write_model(tmp_path / "once", {"embed.weight": before["embed.weight"]})
    with pytest.raises(WrongBaseError, match=r"'lm_head\.weight': the model does not have it"):
        patchc.apply(patch, once, out=tmp_path / "out-2")


def test_links_of_a_download_cache_become_plain_files(tmp_path: Path, direction: Direction) -> None:
    expected = tree(direction.target)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    for number, path in enumerate(sorted(direction.source.rglob("*.*"))):
        relative = path.relative_to(direction.source)
        link = snapshot / relative
        link.parent.mkdir(parents=True, exist_ok=True)
        path.rename(blobs / str(number))
        link.symlink_to(Path("../" * (2 + len(relative.parts) - 1)) / "blobs" / str(number))
    direction.run(tmp_path / "out", snapshot)
    assert tree(tmp_path / "out") == expected
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


def test_other_weight_files_are_left_out_and_reported(tmp_path: Path, direction: Direction) -> None:
    for stray in ("model.safetensors", "consolidated.safetensors", "pytorch_model.bin"):
        write_file(direction.source / stray, {"stray": np.zeros(3, np.float32)})
    report = direction.run(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(direction.target)
    assert sorted(map(str, report.left_out)) == [
        "consolidated.safetensors", "model.safetensors", "pytorch_model.bin",
    ]  # fmt: skip


def test_dry_run_writes_nothing(tmp_path: Path, direction: Direction) -> None:
    names = _names(tmp_path)
    dry = direction.run(tmp_path / "out", dry_run=True)
    assert _names(tmp_path) == names
    report = direction.run(tmp_path / "out")
    assert dry.dry_run
    assert (dry.nbytes, dry.changed_words) == (report.nbytes, report.changed_words)
    fewer = write_model(tmp_path / "fewer", {CHANGED[0]: normal((50, 100), "BF16", 0)})
    with pytest.raises(WrongBaseError):
        direction.run(tmp_path / "out-2", fewer, dry_run=True)


def test_progress_reaches_the_end(tmp_path: Path, direction: Direction) -> None:
    events = []
    direction.run(tmp_path / "out", progress=events.append)
    assert [event.done for event in events] == [10_000 * (i + 1) for i in range(6)]
    assert {(event.stage, event.total, event.unit) for event in events} == {
        (direction.name, 60_000, "bytes")
    }


# Another model ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHANGED + UNCHANGED)
def test_one_word_that_differs(tmp_path: Path, direction: Direction, name: str) -> None:
    other = dict(direction.source_tensors)
    other[name] = other[name].copy()
    other[name].view(np.uint16).ravel()[-1] ^= 4
    model = write_model(tmp_path / "other", other, shards=2)
    _refused(direction, WrongBaseError, f"not the model .* tensor '{name}'", model)


def test_the_first_tensor_that_differs_is_named(tmp_path: Path, direction: Direction) -> None:
    other = dict(direction.source_tensors)
    for name in (CHANGED[3], UNCHANGED[0], CHANGED[2]):
        other[name] = nudge(other[name], 0.01, 1)
    model = write_model(tmp_path / "other", other)
    _refused(direction, WrongBaseError, CHANGED[2], model)


def test_tensors_missing_extra_reshaped_or_of_another_dtype(
    tmp_path: Path, direction: Direction
) -> None:
    own = dict(direction.source_tensors)
    fewer = {name: value for name, value in own.items() if name != CHANGED[1]}
    cases = {
        f"'{CHANGED[1]}': the model does not have it": fewer,
        "'extra': the patch's base does not have it": own | {"extra": own[CHANGED[0]]},
        r"BF16 \[100, 50\].*BF16 \[50, 100\]": own | {CHANGED[0]: own[CHANGED[0]].reshape(100, 50)},
        r"it is F16": own | {CHANGED[0]: own[CHANGED[0]].view(np.float16)},
    }
    for number, (message, tensors) in enumerate(cases.items()):
        model = write_model(tmp_path / str(number), tensors)
        _refused(direction, WrongBaseError, message, model)


def test_the_other_state_has_a_reason_of_its_own(direction: Direction) -> None:
    expected: tuple[type[Exception], str] = (AlreadyPatchedError, "already holds")
    if direction.name == "revert":
        expected = NotPatchedError, "it is the base already"
    _refused(direction, *expected, direction.target)


def test_partly_patched_by_shards(tmp_path: Path, direction: Direction) -> None:
    for number, shard in enumerate((FIRST, SECOND)):
        mixed = shutil.copytree(direction.source, tmp_path / f"mixed{number}")
        shutil.copyfile(direction.target / shard, mixed / shard)
        _refused(direction, PartlyPatchedError, "4 chunks hold the patch and 4 do not", mixed)


@pytest.mark.parametrize("part", [slice(0, 4096), slice(4096, 5000)])
def test_partly_patched_by_chunks(tmp_path: Path, direction: Direction, part: slice) -> None:
    mixed = dict(direction.source_tensors)
    words = mixed[CHANGED[1]].copy()
    words.ravel()[part] = direction.target_tensors[CHANGED[1]].ravel()[part]
    mixed[CHANGED[1]] = words
    model = write_model(tmp_path / "mixed", mixed)
    _refused(direction, PartlyPatchedError, "partly patched", model)


def test_a_model_both_partly_patched_and_wrong_is_wrong(
    tmp_path: Path, direction: Direction
) -> None:
    mixed = dict(direction.source_tensors)
    mixed[CHANGED[0]] = direction.target_tensors[CHANGED[0]]
    mixed[UNCHANGED[1]] = nudge(mixed[UNCHANGED[1]], 0.01, 1)
    model = write_model(tmp_path / "mixed", mixed)
    _refused(direction, WrongBaseError, UNCHANGED[1], model)


# Outputs ---------------------------------------------------------------------------------------


def _make_occupied(_direction: Direction, out: Path) -> Path:
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    return out


def _make_file(_direction: Direction, out: Path) -> Path:
    out.write_text("keep")
    return out


def _make_broken_link(_direction: Direction, out: Path) -> Path:
    out.symlink_to("nowhere")
    return out


def _make_link_to_the_input(direction: Direction, out: Path) -> Path:
    out.symlink_to(direction.source)
    return out


def _inside(direction: Direction, _out: Path) -> Path:
    return direction.source / "deep" / "out"


def _around(direction: Direction, _out: Path) -> Path:
    return direction.source.parent


def _dotted(direction: Direction, _out: Path) -> Path:
    return direction.source / ".." / direction.source.name


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_make_occupied, "not empty"),
        (_make_file, "already exists"),
        (_make_broken_link, "broken symbolic link"),
        (_make_link_to_the_input, "is the input itself"),
        (_inside, "inside the input"),
        (_around, "contains the input"),
        (_dotted, "is the input itself"),
    ],
)
def test_output_refused(
    tmp_path: Path,
    direction: Direction,
    make: Callable[[Direction, Path], Path],
    message: str,
    dry_run: bool,
) -> None:
    out = make(direction, tmp_path / "out")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=message):
        direction.run(out, dry_run=dry_run)
    assert tree(tmp_path) == before


def test_a_folder_for_a_file_is_refused(tmp_path: Path, direction: Direction) -> None:
    model = write_file(tmp_path / "one.safetensors", direction.source_tensors)
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="name a file"):
        direction.run(tmp_path / "out", model)


@pytest.mark.parametrize("linked", [False, True])
def test_an_empty_folder_is_filled(tmp_path: Path, direction: Direction, linked: bool) -> None:
    out = real = tmp_path / "out"
    real.mkdir()
    if linked:
        out = tmp_path / "link"
        out.symlink_to(real)
    direction.run(out)
    assert tree(real) == tree(direction.target)
    assert out.is_symlink() == linked


def test_threads_out_of_range(tmp_path: Path, direction: Direction) -> None:
    with pytest.raises(UsageError, match="threads"):
        direction.run(tmp_path / "out", threads=0)


# Failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 7, 100, 5000, -1])
def test_truncated_shard(direction: Direction, kept: int) -> None:
    shard = direction.source / SECOND
    os.truncate(shard, kept if kept >= 0 else shard.stat().st_size - 1)
    _refused(direction, CheckpointError, SECOND)


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_truncated_patch(direction: Direction, kept: int) -> None:
    size = direction.patch.stat().st_size
    os.truncate(direction.patch, kept if kept >= 0 else size - 1)
    _refused(direction, PatchFormatError, "update.patchc")


def test_damaged_patch_body(direction: Direction) -> None:
    with patchc.open_patch(direction.patch) as opened:
        record = opened.index.tensors[CHANGED[3]]
        offset = opened.index.chunk(record.chunks[1]).offset
    content = bytearray(direction.patch.read_bytes())
    content[offset + 1] ^= 0x10
    direction.patch.write_bytes(content)
    _refused(direction, PatchFormatError, f"{CHANGED[3]}.*chunk 1")


@pytest.mark.parametrize(
    ("digest", "error", "match"),
    [
        ("bodies_digest", PatchFormatError, r"update\.patchc: the digest over all chunk bodies"),
        ("base_digest", ResultMismatchError, "every chunk matches and the model's digest does not"),
        (
            "result_digest",
            ResultMismatchError,
            "every chunk matches and the model's digest does not",
        ),
    ],
)
def test_long_digests_stand_behind_short_ones(
    direction: Direction, digest: str, error: type[PatchcError], match: str
) -> None:
    """Every short digest fits, as a forger of theirs would see to, and the long one does not."""
    parts = parts_of(direction.patch.read_bytes())
    forged = bytes(31) + b"\1"
    direction.patch.write_bytes(parts.with_columns(**{digest: forged}).assemble())
    _refused(direction, error, match)


def test_folder_in_place_of_a_shard(direction: Direction) -> None:
    (direction.source / SECOND).unlink()
    (direction.source / SECOND).mkdir()
    _refused(direction, CheckpointError, SECOND)


def test_side_file_that_cannot_be_copied(direction: Direction) -> None:
    (direction.source / "zz.json").symlink_to("nowhere")
    _refused(direction, CheckpointError, r"zz\.json: not a regular file")


def test_read_error(direction: Direction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "preadv", Failing(os.preadv, 9, errno.EIO))
    _refused(direction, CheckpointError, "cannot read at byte .*Input/output error")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", [0, 1, 2, 9])
def test_write_error(
    direction: Direction, monkeypatch: pytest.MonkeyPatch, call: int, code: int
) -> None:
    monkeypatch.setattr(os, "pwrite", Failing(os.pwrite, call, code))
    message = "the disk is full" if code == errno.ENOSPC else "Input/output error"
    _refused(direction, StorageError, message)


def test_short_writes_are_continued(
    tmp_path: Path, direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:1000], at))
    direction.run(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(direction.target)


def test_an_error_at_any_sync_leaves_all_or_nothing(
    tmp_path: Path, direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail the first sync, then the second, and so on, until a run needs no more of them."""
    fsync, out = os.fsync, tmp_path / "out"
    names, failures = _names(tmp_path), 0
    while True:
        monkeypatch.setattr(os, "fsync", Failing(fsync, failures, errno.ENOSPC))
        try:
            direction.run(out)
        except StorageError:
            failures += 1
            if out.exists():
                assert tree(out) == tree(direction.target)
                shutil.rmtree(out)
            assert _names(tmp_path) == names
        else:
            break
    assert failures == 2 + 4 + 2  # shards, side files, the folder and its parent
    assert tree(out) == tree(direction.target)


def test_too_little_space_is_seen_before_anything_is_written(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(direction.patch.parent)._replace(free=60_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    monkeypatch.setattr(os, "pwrite", None)  # any write would fail in another way
    _refused(direction, StorageError, "60,000 free")


def test_bytes_that_change_during_the_run(direction: Direction) -> None:
    shard = direction.source / SECOND
    before = shard.read_bytes()

    def change(_event: object) -> None:
        with shard.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(bytes([before[-1] ^ 1]))

    out = direction.patch.parent / "out"
    with pytest.raises(WrongBaseError, match=list(read_file(shard))[-1]):
        direction.run(out, threads=1, progress=change)
    assert not out.exists()


def test_a_shard_cut_during_the_run(direction: Direction) -> None:
    def cut(_event: object) -> None:
        os.truncate(direction.source / SECOND, 4000)

    names = _names(direction.patch.parent)
    with pytest.raises(CheckpointError, match="was it changed while in use"):
        direction.run(direction.patch.parent / "out", threads=1, progress=cut)
    assert _names(direction.patch.parent) == names


# Interruptions ---------------------------------------------------------------------------------

HELD = """
import os, signal, sys, time
from patchc.cli.main import main

fsync, calls = os.fsync, iter(range(1000))

def hold(descriptor):
    if next(calls) == 4:  # the side files are in place and all weights are written
        print("started", flush=True)
        time.sleep(600)
    fsync(descriptor)

os.fsync = hold
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[0] = "patchc"
main()
"""

LIMITED = """
import resource, sys
import patchc

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[5]),) * 2)
try:
    getattr(patchc, sys.argv[1])(sys.argv[2], sys.argv[3], out=sys.argv[4])
except patchc.PatchcError as error:
    print(type(error).__name__, error)
"""


def test_interrupt_raised_by_the_callback(direction: Direction) -> None:
    def interrupt(_event: object) -> None:
        raise KeyboardInterrupt

    names = _names(direction.patch.parent)
    with pytest.raises(KeyboardInterrupt):
        direction.run(direction.patch.parent / "out", progress=interrupt)
    assert _names(direction.patch.parent) == names


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signal_in_the_middle(tmp_path: Path, direction: Direction, number: signal.Signals) -> None:
    """After an interrupt nothing is left; after a kill only the hidden staging folder."""
    names, before = _names(tmp_path), tree(direction.source)
    command = [sys.executable, "-c", HELD, direction.name]
    paths = [str(direction.patch), str(direction.source), "-o", str(tmp_path / "out")]
    with subprocess.Popen(
        [*command, *paths], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        assert not (tmp_path / "out").exists()
        process.send_signal(number)
        assert process.wait(timeout=60) != 0
    left = sorted(set(_names(tmp_path)) - set(names))
    if number == signal.SIGKILL:
        assert len(left) == 1
        assert left[0].startswith(".out.")
        assert left[0].endswith(".partial")
    else:
        assert left == []
    assert tree(direction.source) == before
    direction.run(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(direction.target)


@pytest.mark.parametrize("limit", [1000, 20_000])
def test_file_size_limit(tmp_path: Path, direction: Direction, limit: int) -> None:
    names, before = _names(tmp_path), tree(direction.source)
    paths = [str(direction.patch), str(direction.source), str(tmp_path / "out")]
    finished = subprocess.run(
        [sys.executable, "-c", LIMITED, direction.name, *paths, str(limit)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.startswith("StorageError")
    assert "does not allow a file of this size" in finished.stdout
    assert _names(tmp_path) == names
    assert tree(direction.source) == before


@pytest.mark.parametrize("call", [0, 1])
def test_full_disk_while_a_patch_is_written(
    tmp_path: Path, patched: PatchedModel, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """The patch's own sync fails, then that of its folder, where the patch is whole already."""
    monkeypatch.setattr(os, "fsync", Failing(os.fsync, call, errno.ENOSPC))
    out = tmp_path / "new" / "update.patchc"
    with pytest.raises(StorageError, match="the disk is full"):
        patchc.diff(patched.base, patched.tuned, out=out, chunk_bits=12)
    assert _names(out.parent) == [out.name] * call
    assert not call or out.read_bytes() == patched.patch.read_bytes()
