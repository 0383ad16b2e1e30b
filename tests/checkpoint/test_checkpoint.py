"""Which files make a checkpoint, which inputs are refused by name, and ranged reads."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoints import (
    Raw,
    file_bytes,
    normal,
    read_model,
    write_file,
    write_index,
    write_model,
)

from patchc.checkpoint import open_checkpoint
from patchc.dtypes import BY_NAME
from patchc.errors import CheckpointError, UnsupportedInputError

TENSORS = {f"layers.{i}.weight": normal((3, 5), "BF16", i) for i in range(5)}


def _words(path: Path, name: str) -> bytes:
    with open_checkpoint(path) as model:
        info = model.tensors[name]
        return model.read_words(info, 0, np.empty(info.words, info.dtype.word)).tobytes()


# Layouts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_tensors_come_from_the_shard_headers(tmp_path: Path, shards: int) -> None:
    write_model(tmp_path, TENSORS, shards)
    with open_checkpoint(tmp_path) as model:
        assert model.is_folder
        assert len(model.shards) == shards
        assert list(model.tensors) == list(read_model(tmp_path))
        assert set(model.tensors) == set(TENSORS)
        for shard in model.shards.values():
            assert shard.metadata == {"format": "pt"}
    for name, value in TENSORS.items():
        assert _words(tmp_path, name) == value.tobytes()


def test_a_single_file_is_a_checkpoint(tmp_path: Path) -> None:
    path = write_file(tmp_path / "anything.safetensors", TENSORS)
    with open_checkpoint(path) as model:
        assert not model.is_folder
        assert list(model.tensors) == list(TENSORS)
        assert model.nbytes == path.stat().st_size
        assert model.side_files() == ([], [])


def test_order_is_that_of_the_bytes_not_of_the_header(tmp_path: Path) -> None:
    header = {
        "second": {"dtype": "U8", "shape": [1], "data_offsets": [2, 3]},
        "first": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
    }
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(
        len(text).to_bytes(8, "little") + text + b"\x01\x02\x03"
    )
    with open_checkpoint(tmp_path) as model:
        assert list(model.tensors) == ["first", "second"]
    assert _words(tmp_path, "second") == b"\x03"


@pytest.mark.parametrize("dtype", BY_NAME)
def test_every_dtype_is_read_as_written(tmp_path: Path, dtype: str) -> None:
    data = bytes(range(96))
    count = 96 * 8 // BY_NAME[dtype].bits
    write_model(
        tmp_path, {"t": Raw(dtype, (2, count // 2), data), "empty": Raw(dtype, (0, 4), b"")}
    )
    with open_checkpoint(tmp_path) as model:
        assert model.tensors["t"].dtype is BY_NAME[dtype]
        assert model.tensors["t"].nbytes == 96
        assert model.tensors["empty"].words == 0
    assert _words(tmp_path, "t") == data


def test_ranges_are_read_as_slices_of_the_whole(tmp_path: Path) -> None:
    value = np.arange(1000, dtype=np.int32)
    write_model(tmp_path, {"pad": np.zeros(3, np.uint8), "t": value})
    with open_checkpoint(tmp_path) as model:
        found = model.read_words(model.tensors["t"], 313, np.full(7, 99, np.uint32))
        assert found.tolist() == list(range(313, 320))


def test_other_weight_files_are_not_part_of_it(tmp_path: Path) -> None:
    write_model(tmp_path, TENSORS, 2, side_files={"config.json": "{}", "sub/notes.txt": "x"})
    strays = ["mtp.safetensors", "consolidated.safetensors", "pytorch_model.bin", "sub/w.gguf"]
    for stray in strays:
        write_file(tmp_path / stray, {"stray": np.zeros(2, np.float32)})
    write_file(tmp_path / ".cache" / "hidden.json", {})
    with open_checkpoint(tmp_path) as model:
        assert set(model.tensors) == set(TENSORS)
        kept, left = model.side_files()
    assert {str(path) for path in kept} == {
        "config.json", "sub/notes.txt", "model.safetensors.index.json",
    }  # fmt: skip
    assert {str(path) for path in left} == set(strays)


def test_symbolic_links_as_in_a_download_cache(tmp_path: Path) -> None:
    real = write_model(tmp_path / "real", TENSORS, 2, side_files={"config.json": "{}"})
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(real.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
    for name, value in TENSORS.items():
        assert _words(snapshot, name) == value.tobytes()


def test_tied_weights_once_or_twice(tmp_path: Path) -> None:
    value = normal((4, 4), "BF16", 1)
    write_model(tmp_path / "twice", {"embed.weight": value, "lm_head.weight": value})
    write_model(tmp_path / "once", {"embed.weight": value})
    with open_checkpoint(tmp_path / "twice") as model:
        assert list(model.tensors) == ["embed.weight", "lm_head.weight"]
    with open_checkpoint(tmp_path / "once") as model:
        assert list(model.tensors) == ["embed.weight"]


# Refused by name -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("pytorch_model.bin", "PyTorch pickle files are not supported.*convert"),
        ("consolidated.00.pth", "PyTorch pickle"),
        ("model.gguf", "GGUF is not supported.*gguf_file"),
        ("adapter_model.safetensors", "LoRA adapter.*merge_and_unload"),
    ],
)
def test_foreign_folders_are_refused(tmp_path: Path, file: str, message: str) -> None:
    (tmp_path / file).write_bytes(b"anything")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UnsupportedInputError, match=message):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.gguf", b"GGUF\x03\0\0\0", "GGUF"),
        ("renamed.safetensors", b"GGUF\x03\0\0\0", "GGUF"),
        ("pytorch_model.bin", b"PK\x03\x04", "PyTorch pickle"),
        ("renamed.safetensors", b"PK\x03\x04", "PyTorch pickle"),
        ("renamed.safetensors", b"\x80\x02}q", "PyTorch pickle"),
        ("weights.pt", b"", "PyTorch pickle"),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UnsupportedInputError, match=message):
        open_checkpoint(tmp_path / file)


def test_a_path_without_anything_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such file or folder"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no model\.safetensors and no"):
        open_checkpoint(tmp_path)
    write_file(tmp_path / "other.safetensors", TENSORS)
    with pytest.raises(CheckpointError, match=r"it holds other\.safetensors: name that file"):
        open_checkpoint(tmp_path)


# Damaged ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "sub/model.safetensors",
        "/model.safetensors",
        "..",
        "",
        "model.bin",
        "sub/../model.safetensors",
    ],
)
def test_index_naming_no_file_of_the_folder(tmp_path: Path, name: str) -> None:
    write_file(tmp_path / "model.safetensors", TENSORS)
    (tmp_path / "folder").mkdir()
    write_index(tmp_path / "folder", {"layers.0.weight": name})
    with pytest.raises(CheckpointError, match="no safetensors file of this folder"):
        open_checkpoint(tmp_path / "folder")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not readable JSON"),
        (b"\xff\xfe", "not readable JSON"),
        (b"[" * 100_000, "not readable JSON"),
        (b"[]", "no weight_map"),
        (b"{}", "no weight_map"),
        (b'{"weight_map": []}', "no weight_map"),
        (b'{"weight_map": {"a": 3}}', "no weight_map"),
    ],
)
def test_a_malformed_index_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


def test_an_index_that_disagrees_with_its_shards(tmp_path: Path) -> None:
    """Loaders take what its files hold; an entry without a tensor is told in a note."""
    write_model(tmp_path, TENSORS, 2)
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    write_index(tmp_path, {"layers.0.weight": second, "layers.1.weight": first, "ghost": second})
    with open_checkpoint(tmp_path) as model:
        assert set(model.tensors) == set(TENSORS)
    for name, value in TENSORS.items():
        assert _words(tmp_path, name) == value.tobytes()


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_model(tmp_path, TENSORS, 2)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors: no such file"):
        open_checkpoint(tmp_path)


def _with_header(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01",
        (1 << 40).to_bytes(8, "little") + b"{}",
        (2**64 - 1).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        file_bytes(TENSORS)[:-1],
        file_bytes(TENSORS)[:100],
        file_bytes(TENSORS) + b"\0",
        _with_header({"t": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        _with_header({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
        _with_header({"t": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),
        _with_header({"t": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)),
        _with_header({"t": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 0]}}),
        _with_header({"t": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, bytes(1)),
    ],
    ids=[
        "empty", "one byte", "header past the end", "header of 2**64", "header is a list",
        "one byte short", "cut in the header", "one byte more", "unknown dtype", "wrong size",
        "hole", "negative size", "size overflows", "half a byte",
    ],
)  # fmt: skip
def test_a_malformed_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises((CheckpointError, UnsupportedInputError), match=r"model\.safetensors"):
        open_checkpoint(tmp_path)


def test_folder_in_place_of_a_shard(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        open_checkpoint(tmp_path)


def test_a_file_cut_while_open_is_named(tmp_path: Path) -> None:
    write_model(tmp_path, TENSORS)
    path = tmp_path / "model.safetensors"
    with open_checkpoint(tmp_path) as model:
        os.truncate(path, path.stat().st_size - 1)
        last = list(model.tensors.values())[-1]
        with pytest.raises(CheckpointError, match="was it changed while in use"):
            model.read_words(last, 0, np.empty(last.words, np.uint16))


def test_read_error_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> int:
        raise OSError(5, "Input/output error")

    write_model(tmp_path, TENSORS)
    with open_checkpoint(tmp_path) as model:
        monkeypatch.setattr(os, "preadv", refuse)
        with pytest.raises(CheckpointError, match=r"model\.safetensors.*Input/output error"):
            model.read_words(next(iter(model.tensors.values())), 0, np.empty(1, np.uint16))
