"""Small patch files that ask for gigabytes or minutes are refused; what they may hold costs little.

Also: what an honest writer packs too well is stored plainly, so that every reader takes it.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import expanding_patch
import numpy as np
import pytest
from expanding_patch import MOST_TENSORS, many_chunks, many_shapes, metadata_of
from forged_patch import Parts, golden_parts, refuse
from second_reader import read_index
from traced_memory import peak_of
from update_files import write_update

from patchc import annotate, inspect, open_patch, verify
from patchc.dtypes import BY_NAME
from patchc.errors import PatchFormatError, UnsupportedInputError
from patchc.formats.container.expansion import MOST_EXPANSION
from patchc.formats.container.file_changes import encode_file
from patchc.formats.container.writer import PatchWriter

MEGABYTE = 1 << 20
INDEX = "the index declares a size that its stored bytes cannot hold"
METADATA = "the metadata declares a size that its stored bytes cannot hold"


def calls_of(work: Callable[[], object]) -> int:
    """How many functions some work calls."""
    calls = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize(
    ("make", "most_stored", "match"),
    [
        (expanding_patch.zeros, 300_000, INDEX),
        (many_shapes, 62_000, INDEX),
        (lambda: many_chunks(MOST_TENSORS, 1), 573_000, INDEX),
        (lambda: many_chunks(1, 1 << 21, 0), 100_000, INDEX),
        (expanding_patch.long_names, 62_000, "tensor names are above the size cap"),
        (lambda: metadata_of(b"[]"), 20_000, METADATA),
        (lambda: metadata_of(b'{"":0}'), 20_000, METADATA),
        (lambda: metadata_of('"€"'.encode()), 20_000, METADATA),
    ],
)
def test_what_expands_by_more_than_honest_files_is_refused_at_once(
    tmp_path: Path, make: Callable[[], Parts], most_stored: int, match: str
) -> None:
    path = tmp_path / "x.patchc"
    path.write_bytes(make().assemble())
    assert path.stat().st_size < most_stored

    def read() -> None:
        for command in (inspect, verify):
            with pytest.raises(PatchFormatError, match=match):
                command(path)

    assert peak_of(read) < 2 * MEGABYTE


@pytest.mark.parametrize("make", [many_shapes, lambda count: many_chunks(count, 1)])
def test_the_cost_of_an_index_is_in_proportion_to_it(
    tmp_path: Path, make: Callable[[int], Parts]
) -> None:
    paths = []
    for count in (1000, 2000):
        paths.append(tmp_path / f"{count}.patchc")
        paths[-1].write_bytes(make(count).assemble(level=0))
    inspect(paths[0])
    assert peak_of(lambda: inspect(paths[1])) < 24 * paths[1].stat().st_size
    fewer, more = (calls_of(lambda path=path: inspect(path)) for path in paths)
    assert more - fewer < 250 * 1000


@pytest.mark.parametrize("piece", [b"[]", b'{"":0}', b"999", '"€"'.encode()])
def test_metadata_of_more_values_than_the_cap(tmp_path: Path, piece: bytes) -> None:
    path = tmp_path / "x.patchc"
    path.write_bytes(metadata_of(piece).assemble(level=0))

    def read() -> None:
        with pytest.raises(PatchFormatError, match="more than 131,072 objects and arrays, or more"):
            inspect(path)

    assert peak_of(read) < 32 * MEGABYTE


def test_metadata_at_its_caps(tmp_path: Path) -> None:
    """Its size may be 8 MB, of which a character may take four bytes."""
    text = b'{"a":[' + b"[]," * 131_000 + '"€",'.encode() * 390_000 + b'1],"b":"'
    text += "\U0001f9ea".encode() + b"x" * ((8 << 20) - len(text) - 6) + b'"}'
    path = tmp_path / "x.patchc"
    path.write_bytes(golden_parts().but(metadata=text).assemble(level=0))
    assert peak_of(lambda: inspect(path)) < 150 * MEGABYTE


@pytest.mark.parametrize("section", ["index", "metadata"])
def test_a_section_stored_in_more_bytes_than_it_can_take(tmp_path: Path, section: str) -> None:
    """A zlib stream may hold any number of empty blocks, all of which a reader would read."""
    parts = golden_parts()
    plain = zlib.compress(getattr(parts, section), 9)
    data = plain[:2] + b"\0\0\0\xff\xff" * 400 + plain[2:]
    assert zlib.decompress(data) == getattr(parts, section)
    changed = parts.but(**{f"stored_{section}": data})
    refuse(tmp_path, changed, f"the {section} is stored in more bytes than its size can take")


def test_a_file_that_expands_by_more_than_the_cap(tmp_path: Path) -> None:
    """A body of 4 kB that would become 4 MB is refused before it is expanded."""
    size = 4 * MEGABYTE
    body = zlib.compress(bytes(size), 9)
    parts = expanding_patch.one_file(body, size)
    assert peak_of(lambda: refuse(tmp_path, parts, "the body declares a size", read=verified)) < (
        MEGABYTE
    )


def verified(path: Path, data: bytes) -> int:
    path.write_bytes(data)
    verify(path)
    return 0


def test_a_large_file_is_in_memory_once_as_stored_and_once_expanded(tmp_path: Path) -> None:
    size = 12 * MEGABYTE
    content = np.random.default_rng(1).bytes(size)
    patch = write_update(tmp_path, {}, {"tokenizer.json": content}).patch
    inspect(patch)
    assert peak_of(lambda: inspect(patch)) < 2.5 * size


def test_a_writer_stores_plainly_what_packs_too_well(tmp_path: Path) -> None:
    """Equal tensors have one digest, so their index packs by more than a reader takes."""
    file, count = io.BytesIO(), 20_000
    writer = PatchWriter(file)
    for number in range(count):
        writer.end_tensor(f"model.layers.{number:06}.bias", BY_NAME["BF16"], (16,), bytes(32))
    metadata = {"kind": "diff", "statistics": "x" * MEGABYTE}
    writer.finish(metadata, bytes(32), bytes(32))
    path = tmp_path / "x.patchc"
    path.write_bytes(file.getvalue())
    with open_patch(path) as patch:
        assert (len(patch.index.tensors), patch.metadata) == (count, metadata)
        assert patch.trailer.index_stored > patch.trailer.index_size
        assert patch.trailer.metadata_stored > patch.trailer.metadata_size


def test_a_file_of_equal_bytes_is_stored_plainly() -> None:
    encoded = encode_file("a.txt", None, bytes(MEGABYTE), False)
    assert len(encoded.body) > MEGABYTE
    assert zlib.decompress(encoded.body) == bytes(MEGABYTE)


def test_honest_indexes_stay_well_inside_the_cap() -> None:
    """A model of many experts, of which nothing changes: nothing else packs better."""
    file, random = io.BytesIO(), np.random.default_rng(0)
    writer = PatchWriter(file)
    names = [f"{part}_proj.weight" for part in ("down", "gate", "up")]
    for layer in range(10, 20):
        for expert in range(100, 300):
            for name in names:
                full = f"model.layers.{layer}.mlp.experts.{expert}.{name}"
                writer.end_tensor(full, BY_NAME["BF16"], (2048, 7168), random.bytes(32))
    writer.finish({"kind": "diff"}, bytes(32), bytes(32))
    trailer = struct.unpack("<QQQ", file.getvalue()[-96:-72])
    assert trailer[2] / trailer[1] < 0.6 * MOST_EXPANSION["index"]


@pytest.mark.parametrize("fields", [{"a": [[]] * (1 << 17)}, {"a": [0] * (1 << 19) + [1, 2]}])
def test_a_writer_refuses_metadata_that_no_reader_takes(fields: dict[str, object]) -> None:
    with pytest.raises(UnsupportedInputError, match=r"the metadata, .* is larger"):
        PatchWriter(io.BytesIO()).finish(fields, bytes(32), bytes(32))


def test_a_writer_refuses_names_that_no_reader_takes() -> None:
    """By what is wrong: larger chunks would not help."""
    writer = PatchWriter(io.BytesIO())
    for number in range(1000):
        writer.end_tensor("x" * 3000 + f"{number:03}", BY_NAME["BF16"], (16,), bytes(32))
    with pytest.raises(UnsupportedInputError, match="names of the model's tensors are too long"):
        writer.finish({}, bytes(32), bytes(32))


def test_a_grid_of_any_size_is_not_gone_through(tmp_path: Path) -> None:
    """A tensor of 2^62 words, of which the last two chunks that have numbers change."""
    index = read_index(golden_parts().index)
    parts = golden_parts().with_columns(
        dims=[2**62, *index.dims[1:]],
        counts=[2, 0, 0, 0],
        skips=[2**32 - 2, 0],
        tensor_digests=[bytes(8), bytes(8), *index.tensor_digests],
    )
    path = tmp_path / "x.patchc"
    path.write_bytes(parts.assemble())
    assert inspect(path).total.words > 2**62
    assert verify(path).state == "intact"
    for command in (inspect, verify):
        assert calls_of(lambda command=command: command(path)) < 20_000
        assert peak_of(lambda command=command: command(path)) < 4 * MEGABYTE


def test_an_annotation_that_would_make_the_metadata_too_large_is_refused(tmp_path: Path) -> None:
    digits = np.random.default_rng(0).integers(10, size=(1 << 19) + 1)
    full = b'{"a":[' + b",".join(b"%d" % one for one in digits) + b"]}"
    patch = tmp_path / "full.patchc"
    patch.write_bytes(golden_parts().but(metadata=full).assemble())
    inspect(patch)
    with pytest.raises(UnsupportedInputError, match="more values than the format takes"):
        annotate(patch, name="one more", out=tmp_path / "named.patchc")
    assert not (tmp_path / "named.patchc").exists()
