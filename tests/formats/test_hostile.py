"""Files from a stranger: one test for each rejection of prologue, trailer and sections."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from forged_patch import numbers, read_all, refuse
from hostile_patch import (
    CHUNKS,
    COUNTS,
    DIMENSIONS,
    GOLDEN,
    INDEX,
    SHARED,
    TENSORS,
    u32,
)

from patchc import annotate, inspect, open_patch, verify
from patchc.errors import PatchFormatError, UnsupportedPatchError
from patchc.hashing import root_digest


def test_the_untouched_parts_are_accepted(tmp_path: Path) -> None:
    assert read_all(tmp_path / "x.patchc", GOLDEN.assemble()) == 4


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PatchFormatError, match=r"no\.patchc: cannot open"):
        open_patch(tmp_path / "no.patchc")


def test_a_folder_is_no_patch(tmp_path: Path) -> None:
    with pytest.raises(PatchFormatError):
        open_patch(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 111])
def test_a_file_that_is_too_short_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(PatchFormatError, match=r"truncated|empty"):
        read_all(tmp_path / "x.patchc", GOLDEN.assemble()[:size])


def test_a_wrong_magic_is_refused(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.but(prologue=b"SAFETENS" + GOLDEN.prologue[8:]), "not a patch file")


def test_newline_conversion_is_noticed(tmp_path: Path) -> None:
    data = GOLDEN.assemble().replace(b"\r\n", b"\n")
    with pytest.raises(PatchFormatError):
        read_all(tmp_path / "x.patchc", data)


@pytest.mark.parametrize(
    ("major", "minor", "remedy"),
    [(1, 0, "build the patch again"), (1, 1, "build the patch again"), (3, 0, "update patchc")],
)
def test_another_major_version_is_named(
    tmp_path: Path, major: int, minor: int, remedy: str
) -> None:
    version = struct.pack("<HH", major, minor)
    parts = GOLDEN.but(prologue=GOLDEN.prologue[:8] + version + GOLDEN.prologue[12:])
    match = rf"format version {major}\.{minor} is not supported.*reads version 2.*{remedy}"
    refuse(tmp_path, parts, match, UnsupportedPatchError)


def test_a_file_of_version_1_is_refused_by_its_number(tmp_path: Path) -> None:
    """The smallest whole file that version 1.0 could hold: no tensor, an empty object."""
    index, metadata = zlib.compress(bytes(72)), zlib.compress(b"{}")
    prologue = b"PATCHC\r\n" + struct.pack("<HHBBH", 1, 0, 20, 0, 0)
    head = struct.pack("<6Q", 16, len(index), 72, len(metadata), 2, 0)
    root = root_digest((prologue, index, metadata, head))
    data = prologue + index + metadata + head + root + bytes(8) + b"\r\nPATCHC"
    for read in (open_patch, verify, inspect):
        path = tmp_path / "old.patchc"
        path.write_bytes(data)
        with pytest.raises(UnsupportedPatchError, match=r"old\.patchc: format version 1\.0 is"):
            read(path)


def test_a_later_minor_version_is_read(tmp_path: Path) -> None:
    parts = GOLDEN.but(prologue=GOLDEN.prologue[:10] + b"\x07\x00" + GOLDEN.prologue[12:])
    assert read_all(tmp_path / "x.patchc", parts.assemble()) == 4


@pytest.mark.parametrize("bits", [0, 11, 23, 63, 255])
def test_chunk_bits_out_of_range(tmp_path: Path, bits: int) -> None:
    parts = GOLDEN.but(prologue=GOLDEN.prologue[:12] + bytes([bits]) + GOLDEN.prologue[13:])
    refuse(tmp_path, parts, "prologue")


@pytest.mark.parametrize("at", [13, 14, 15])
def test_reserved_bytes_must_be_zero(tmp_path: Path, at: int) -> None:
    prologue = GOLDEN.prologue[:at] + b"\x01" + GOLDEN.prologue[at + 1 :]
    refuse(tmp_path, GOLDEN.but(prologue=prologue), "prologue")


def test_trailing_bytes_are_refused(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.but(tail=b"\0"), "trailer")


def test_unknown_features_are_named(tmp_path: Path) -> None:
    parts = GOLDEN.but(features=1 << 5 | 1 << 63)
    refuse(tmp_path, parts, "feature 5, 63", UnsupportedPatchError)


@pytest.mark.parametrize("size", [1, 64, 2**16, 2**64 - 8])
def test_a_signature_section_that_does_not_add_up(tmp_path: Path, size: int) -> None:
    refuse(tmp_path, GOLDEN.but(signature=size), "add up|65,536 are the most")


@pytest.mark.parametrize("offset", [0, 8, 15, 26, 28, 2**63, 2**64 - 8])
def test_index_offset_that_does_not_add_up(tmp_path: Path, offset: int) -> None:
    refuse(tmp_path, GOLDEN.but(index_offset=offset), "add up")


@pytest.mark.parametrize("size", [2**30 + 1, 2**63])
def test_index_size_above_the_cap(tmp_path: Path, size: int) -> None:
    refuse(tmp_path, GOLDEN.but(index_size=size), "cap")


@pytest.mark.parametrize("size", [2**26 + 1, 2**64 - 1])
def test_metadata_size_above_the_cap(tmp_path: Path, size: int) -> None:
    refuse(tmp_path, GOLDEN.but(metadata_size=size), "cap")


def test_a_size_that_deflate_cannot_reach(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.but(metadata_size=2**23), "cannot hold")


def test_a_bomb_expands_no_further_than_declared(tmp_path: Path) -> None:
    bomb = GOLDEN.but(metadata=bytes(60 << 20), metadata_size=1000)
    data = bomb.assemble()
    tracemalloc.start()
    with pytest.raises(PatchFormatError, match="metadata"):
        read_all(tmp_path / "x.patchc", data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("change", [-1, 1])
def test_sections_of_another_size_than_declared(tmp_path: Path, change: int) -> None:
    refuse(tmp_path, GOLDEN.but(index_size=len(GOLDEN.index) + change), "index")
    refuse(tmp_path, GOLDEN.but(metadata_size=len(GOLDEN.metadata) + change), "metadata")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[1]",
        b"{",
        b"\xff\xfe",
        '{"a": 1}'.encode("utf-16"),
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": ' + b"9" * 10_000 + b"}",
        b'{"a": -1e999}',
        b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}",
        b'{"a": ' + b'[{"a":' * 32 + b"1" + b"}]" * 32 + b"}",
    ],
)
def test_metadata_that_is_no_json_object(tmp_path: Path, text: bytes) -> None:
    refuse(tmp_path, GOLDEN.but(metadata=text), "metadata")


def test_metadata_at_its_bounds_is_shown_and_written_again(tmp_path: Path) -> None:
    text = b'{"a": ' + b"[" * 63 + b"1e308" + b"]" * 63 + b"}"
    (tmp_path / "deep.patchc").write_bytes(GOLDEN.but(metadata=text).assemble())
    code, told, _ = run("inspect", tmp_path / "deep.patchc", "--json")
    assert code == 0
    metadata = json.loads(told)["metadata"]
    report = annotate(tmp_path / "deep.patchc", name="x", out=tmp_path / "named.patchc")
    assert inspect(report.out).metadata == metadata | {"annotation": {"name": "x"}}


def test_more_tensors_than_the_cap(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(TENSORS, u32(2**32 - 1)), "above the cap")


def test_more_tensors_than_the_index_holds(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(TENSORS, u32(1 << 18)), "shorter")


def test_more_chunks_than_the_cap(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(CHUNKS, u32((1 << 21) + 1)), "chunks, above the cap")


def test_more_chunks_than_the_index_holds(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(CHUNKS, u32(1 << 21)), "shorter")


@pytest.mark.parametrize("counts", [[2, 1, 0, 0], [1, 0, 0, 0], [1, 2**32 - 1, 0, 0]])
def test_chunk_counts_that_do_not_add_up(tmp_path: Path, counts: list[int]) -> None:
    refuse(tmp_path, GOLDEN.with_columns(counts=counts), "add up")


def test_an_index_longer_than_its_counts(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.but(index=GOLDEN.index + b"\0"), "longer")


def test_an_index_shorter_than_its_counts(tmp_path: Path) -> None:
    for length in range(len(GOLDEN.index)):
        refuse(tmp_path, GOLDEN.but(index=GOLDEN.index[:length]), "index")


@pytest.mark.parametrize("width", [0, 3, 5, 9, 255])
@pytest.mark.parametrize("column", [SHARED, SHARED + 5])
def test_a_column_of_an_impossible_width(tmp_path: Path, column: int, width: int) -> None:
    refuse(tmp_path, GOLDEN.with_index(column, bytes([width])), "width out of range")


@pytest.mark.parametrize(
    "column",
    [
        {"counts": [1, 1, 0, 2**32]},
        {"skips": [0, 2**32]},
        {"entries": [3, 2**40]},
        {"lengths": [6, 2**32]},
        {"rests": [b"a", b"b", b"c", bytes(1 << 16)]},
    ],
)
def test_numbers_wider_than_their_column_may_be(tmp_path: Path, column: dict[str, Any]) -> None:
    refuse(tmp_path, GOLDEN.with_columns(**column), "width out of range")


def test_wider_columns_than_needed_are_read(tmp_path: Path) -> None:
    head, dims = GOLDEN.index[:DIMENSIONS], struct.pack("<5Q", *INDEX.dims)
    planes = bytes(dims[8 * i + k] for k in range(8) for i in range(5))
    assert GOLDEN.index[DIMENSIONS:COUNTS] == numbers(INDEX.dims)
    wide = GOLDEN.but(index=head + b"\x08" + planes + GOLDEN.index[COUNTS:])
    assert read_all(tmp_path / "x.patchc", wide.assemble()) == 4
