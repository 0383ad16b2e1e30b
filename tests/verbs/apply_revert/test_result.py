"""Apply and revert write the other model exactly, with its layout and modes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from directions import CHANGED, FIRST, SECOND, Direction
from tiny_checkpoints import (
    Raw,
    names_of,
    normal,
    nudge,
    tree,
    write_file,
    write_model,
)

import patchc
from patchc.dtypes import BY_NAME
from patchc.errors import (
    WrongBaseError,
)


def test_writes_the_other_model_byte_for_byte(tmp_path: Path, direction: Direction) -> None:
    before = tree(direction.source)
    report = direction.run(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(direction.target)
    assert tree(direction.source) == before
    assert (len(report.files), report.side_files, report.tensors) == (2, 4, 6)
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


def test_file_modes_are_kept(tmp_path: Path, direction: Direction) -> None:
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
    assert names_of(out.parent) == [out.name]
    assert (len(report.files), report.side_files) == (1, 0)


def test_resharded_model_keeps_its_own_layout(tmp_path: Path, direction: Direction) -> None:
    reverse = dict(reversed(direction.source_tensors.items()))
    model = write_model(tmp_path / "resharded", reverse, shards=3)
    direction.run(tmp_path / "out", model)
    reverse = dict(reversed(direction.target_tensors.items()))
    assert tree(tmp_path / "out") == tree(write_model(tmp_path / "expected", reverse, shards=3))


def test_tied_weights_stored_twice_both_change(tmp_path: Path) -> None:
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
    strays = ["consolidated.safetensors", "mtp.safetensors", "pytorch_model.bin"]
    for stray in strays:
        write_file(direction.source / stray, {"stray": np.zeros(3, np.float32)})
    report = direction.run(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(direction.target)
    assert sorted(map(str, report.left_out)) == strays
    assert [one.name for one in report.left_aside] == strays


def test_dry_run_writes_nothing(tmp_path: Path, direction: Direction) -> None:
    names = names_of(tmp_path)
    dry = direction.run(tmp_path / "out", dry_run=True)
    assert names_of(tmp_path) == names
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
