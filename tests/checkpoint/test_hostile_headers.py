"""Headers and indexes of checkpoints from strangers: refused in one line, within bounded memory.

What patchc reads, the reference implementation reads to the same tensors.
"""

from __future__ import annotations

import json
from itertools import accumulate, pairwise
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import deserialize
from traced_memory import peak_of

from patchc.checkpoint import open_checkpoint
from patchc.dtypes import BY_NAME
from patchc.errors import CheckpointError, PatchcError, UnsupportedInputError

MEGABYTE = 1 << 20
A = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}


def file_of(header: str | bytes, data: int = 2) -> bytes:
    """A safetensors file with a header, and so many bytes after it."""
    text = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    return len(text).to_bytes(8, "little") + text + bytes(data)


def with_a(**fields: Any) -> str:
    """A header of one tensor ``a`` of two bytes, with other fields."""
    return json.dumps({"a": A | fields})


def refused(path: Path, match: str, error: type[PatchcError] = CheckpointError) -> None:
    with pytest.raises(error, match=match) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    assert len(message) < 600
    assert message.isprintable()


OFFSETS = "tensor 'a': its data_offsets are not two whole numbers"
SHAPE = "tensor 'a': its shape is not a list of whole numbers"
BITS = "takes more than 64 bits"


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (with_a(data_offsets=[0, 10**30]), BITS),
        (with_a(shape=[10**30]), BITS),
        (with_a().replace("[0, 2]", "[0, 1e999]"), "beyond every number"),
        (with_a().replace("[0, 2]", "[0, NaN]"), "NaN is not JSON"),
        (with_a(data_offsets=[-1, 1]), OFFSETS),
        (with_a(data_offsets=[0, 2.0]), OFFSETS),
        (with_a().replace("[0, 2]", "[-0, 2]"), OFFSETS),
        (with_a(data_offsets=[False, 2]), OFFSETS),
        (with_a(data_offsets=["0", 2]), OFFSETS),
        (with_a(data_offsets=[0, 2, 4]), OFFSETS),
        (with_a(data_offsets={"0": 2}), OFFSETS),
        (with_a(data_offsets=[2, 0]), "do not have the size of its shape"),
        (with_a(data_offsets=[1, 3]), "'a': its bytes start at 1, and those before it end at 0"),
        (with_a(shape=[True, 2]), SHAPE),
        (with_a(shape=[-2, -1]), SHAPE),
        (with_a(shape=[2.0]), SHAPE),
        (with_a(shape=2), SHAPE),
        (with_a(shape=[2**32, 2**32]), "more words than 64 bits"),
        (with_a(shape=[2**63, 2, 0]), "more words than 64 bits"),
        (with_a(shape=[3]), "do not have the size of its shape"),
        (with_a(dtype="F4", shape=[3]), "'a': its shape does not fill whole bytes"),
        (with_a(dtype=7), "'a': its dtype is not a text"),
        ('{"a": {"dtype": "U8", "shape": [2]}}', "'a': its dtype, shape or data_offsets"),
        ('{"a": [2]}', "'a': its dtype, shape or data_offsets"),
        ('{"a": null}', "'a': its dtype, shape or data_offsets"),
        ('{"\\ud800": 2}', "half a character"),
        (with_a().replace('"a"', '"\ud800"'), "not UTF-8"),
        ('{"__metadata__": {"x": "\\udfff"}}', "half a character"),
        (f'{{"a": {json.dumps(A)}, "a": {json.dumps(A)}}}', "the key 'a' is given twice"),
        (with_a().replace("{", '{"x": 1, "x": 2, ', 1), "the key 'x' is given twice"),
        ('{"__metadata__": {"x": 1}}', "metadata of its header is not a table of texts"),
        ('{"__metadata__": [], "a": 1}', "metadata of its header is not a table of texts"),
        ('{"__metadata__": ' + json.dumps(A) + "}", "metadata of its header is not a table"),
        ('{"a": ' + "[" * 65 + "]" * 65 + "}", "nested more than 64 deep"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested more than 64 deep"),
        ("[" * 100_000, "is not a JSON object"),
        (" " + with_a(), "is not a JSON object"),
        ("[]", "is not a JSON object"),
        ("{}", "its tensors take 0 bytes, and it has 2 for them"),
        ("{", "its header cannot be read"),
        ("", "is not a JSON object"),
    ],
)
def test_a_header_that_is_none_is_refused_by_what_is_wrong(
    tmp_path: Path, header: str, match: str
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of(header))
    refused(path, match)


@pytest.mark.parametrize("size", [3, 10**6, 1 << 63, (1 << 64) - 1])
def test_a_header_longer_than_its_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(size.to_bytes(8, "little") + b"{}")
    assert peak_of(lambda: refused(path, "it ends before its header does")) < MEGABYTE


def test_a_header_above_the_cap_is_not_read(tmp_path: Path) -> None:
    """The file is sparse: it takes no space, and reading it would take a terabyte."""
    path = tmp_path / "model.safetensors"
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{")
    with path.open("r+b") as file:
        file.truncate((1 << 40) + 8)
    assert peak_of(lambda: refused(path, "a header of .* bytes is above the cap")) < MEGABYTE


def test_a_dtype_of_any_length_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of(json.dumps({"n" * 5000: A | {"dtype": "X" * 5000}})))
    refused(path, "has dtype X{40}, which", UnsupportedInputError)


def empty_tensors(count: int) -> str:
    one = '"%06x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    return "{" + ",".join(one % number for number in range(count)) + "}"


@pytest.mark.parametrize(
    "header",
    [
        empty_tensors(1_000_000),
        '{"a":{"dtype":"U8","shape":[' + "0," * 5_000_000 + '0],"data_offsets":[0,0]}}',
        '{"__metadata__":{' + '"":"",' * 5_000_000 + '"":""}}',
        '{"a":[' + "[]," * 2_000_000 + "[]]}",
    ],
)
def test_more_than_a_model_may_have_is_counted_before_it_is_read(
    tmp_path: Path, header: str
) -> None:
    """A million tensors took 1 GB and 19 s."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of(header, 0))
    most = len(header) + MEGABYTE
    assert peak_of(lambda: refused(path, "more than the 262,144", UnsupportedInputError)) < most


@pytest.mark.parametrize("shards", [1, 2])
def test_the_tensors_of_all_shards_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    monkeypatch.setattr("patchc.checkpoint.header_text.MOST_TENSORS", 5 if shards == 1 else 3)
    monkeypatch.setattr("patchc.checkpoint.weight_map.MOST_TENSORS", 5)
    names = [f"{number}.safetensors" for number in range(shards)]
    for name in names:
        (tmp_path / name).write_bytes(file_of(empty_tensors(6 // shards), 0))
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": dict(enumerate(names))}))
    refused(tmp_path, "more than (the )?5 tensors", UnsupportedInputError)


def test_the_cost_of_a_header_is_in_proportion_to_it(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = empty_tensors(5_000)
    path.write_bytes(file_of(header, 0))
    assert peak_of(lambda: open_checkpoint(path)) < 16 * len(header)


def indexed(folder: Path, text: str) -> Path:
    (folder / "s.safetensors").write_bytes(file_of(with_a()))
    path = folder / "model.safetensors.index.json"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"weight_map": {"a": "s.safetensors", "a": "s.safetensors"}}', "'a' is given twice"),
        ('{"weight_map": {}, "weight_map": {}}', "'weight_map' is given twice"),
        ('{"metadata": {"total_size": 1e999}, "weight_map": {}}', "beyond every number"),
        ('{"metadata": {"total_size": ' + "9" * 30 + "}}", BITS),
        ('{"weight_map": {"\\ud800": "s.safetensors"}}', "half a character"),
        ('{"weight_map": ' + "[" * 65 + "]" * 65 + "}", "nested more than 64 deep"),
        ('{"weight_map": {"a": "../s.safetensors"}}', "is no safetensors file of this folder"),
        ('{"weight_map": {"a": "s\\u0000.safetensors"}}', "is no safetensors file of this"),
        ('{"weight_map": {"a": "' + "x" * 9000 + '/s.safetensors"}}', "is no safetensors file of"),
        ('{"weight_map": {"a": "' + "x" * 9000 + '.safetensors"}}', "is no safetensors file of"),
    ],
)
def test_an_index_from_a_stranger(tmp_path: Path, text: str, match: str) -> None:
    path = indexed(tmp_path, text)
    with pytest.raises(CheckpointError, match=match) as caught:
        open_checkpoint(tmp_path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "text",
    [
        '{"weight_map": {' + '"":"",' * 600_000 + '"":""}}',
        '{"x": [' + "[]," * 300_000 + "[]]}",
        json.dumps({"weight_map": {f"{n}": f"{n}.safetensors" for n in range(5000)}}),
    ],
)
def test_an_index_of_more_than_a_model_may_have(tmp_path: Path, text: str) -> None:
    indexed(tmp_path, text)

    def read() -> None:
        with pytest.raises(PatchcError, match=r"index\.json: (.*more entries|names 5,000)"):
            open_checkpoint(tmp_path)

    assert peak_of(read) < len(text) + 4 * MEGABYTE


sizes = st.sampled_from(
    [0, 1, 2, 3, 4, 8, 2**32, 2**63, 2**64 - 1, 2**64, -1, 2.0, True, "2", None]
)
odd_entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*BY_NAME, "U8", "bf16", "", 3]),
        "shape": st.lists(sizes, max_size=4) | st.just([2]) | st.none(),
        "data_offsets": st.lists(sizes, min_size=2, max_size=2) | st.just([0, 2]),
    },
    optional={"more": st.sampled_from([1, "x", [], {"a": 1}])},
)
small_entries = st.fixed_dictionaries(
    {"dtype": st.sampled_from([*BY_NAME]), "shape": st.lists(st.integers(0, 4), max_size=3)},
)
names = st.sampled_from(["a", "b", "", "é", "\0", "\ud800", "__metadata__", "a" * 300])
odd_headers = st.dictionaries(
    names, odd_entries | st.dictionaries(names, st.sampled_from(["x", 1]), max_size=2), max_size=4
)
small_headers = st.dictionaries(st.sampled_from(["a", "b", "é", "\0"]), small_entries, max_size=4)


def bits_of(entry: dict[str, Any]) -> int:
    return prod(entry["shape"]) * BY_NAME[entry["dtype"]].bits


def filled(header: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The same with offsets that follow each other."""
    ends = list(accumulate((bits_of(entry) // 8 for entry in header.values()), initial=0))
    places = zip(header.items(), pairwise(ends), strict=True)
    return {name: entry | {"data_offsets": list(place)} for (name, entry), place in places}


def compare(header: dict[str, Any], padding: str, is_ascii: bool) -> bool:
    """Whether patchc reads a file; if so, the reference has to read the same."""
    text = json.dumps(header, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    ends = [entry["data_offsets"][1] for entry in header.values() if "data_offsets" in entry]
    size = max((end for end in ends if type(end) is int and 0 <= end < 10_000), default=0)
    data = file_of(text + padding.encode(), 0) + bytes(i % 251 for i in range(size))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(data)
        try:
            with open_checkpoint(path) as opened:
                tensors = dict(opened.tensors)
        except PatchcError:
            return False
    reference = dict(deserialize(data))
    assert reference.keys() == tensors.keys()
    for name, found in tensors.items():
        assert reference[name]["dtype"] == found.dtype.name
        assert tuple(reference[name]["shape"]) == found.shape
        assert reference[name]["data"] == data[found.offset : found.offset + found.nbytes]
    return True


@settings(max_examples=200, deadline=None)
@given(odd_headers, st.sampled_from(["", " ", "\n", "\0"]), st.booleans())
def test_what_is_read_is_what_the_reference_reads(
    header: dict[str, Any], padding: str, is_ascii: bool
) -> None:
    compare(header, padding, is_ascii)


@settings(max_examples=200, deadline=None)
@given(small_headers, st.booleans())
def test_plain_headers_are_read_as_by_the_reference(
    header: dict[str, dict[str, Any]], is_ascii: bool
) -> None:
    assert compare(filled(header), "", is_ascii) == all(
        bits_of(entry) % 8 == 0 for entry in header.values()
    )
