"""Additive files from a stranger: one test for each rejection, then flips, cuts and mutations."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import forged_patch
import pytest
from forged_patch import Parts, golden_parts, parts_of, read_or_refuse, write_anew
from golden_additive import additive_bytes, metadata, write_base
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from second_reader import read_index

import patchc
from patchc.errors import PatchFormatError, UnsupportedPatchError, UsageError
from patchc.formats import open_patch
from patchc.formats.container.layout import pack_prologue

GOLDEN = parts_of(additive_bytes("bf16"))
INT8 = parts_of(additive_bytes("int8"))
LARGE = GOLDEN.but(prologue=pack_prologue(1 << 22))
COLUMNS = read_index(GOLDEN.index)

BODY = {"bf16": "00 02 00 01 02 803C 00BC 01 02 00 01 03 003D 003D"}
BODY["int8"] = "00 02 00 01 02 0000803C 7FC0 01 02 00 01 03 0000003D 7F7F"


def with_body(body: str | bytes, parts: Parts = GOLDEN, entries: int = 3, words: int = 4) -> Parts:
    """The worked example with another body for the chunk of `a`, its digests made to fit."""
    data = bytes.fromhex(body) if isinstance(body, str) else body
    return parts.with_first_body(data, entries, words)


def with_dtype(code: int, parts: Parts = GOLDEN) -> Parts:
    """The same with another dtype for `a`."""
    return parts.with_columns(codes=[code, *COLUMNS.codes[1:]])


def with_metadata(change: dict[str, Any]) -> Parts:
    """The worked example with other keys under `additive`."""
    content = metadata("bf16")
    content["additive"] |= change
    return GOLDEN.but(metadata=json.dumps(content).encode())


def with_component(change: dict[str, Any]) -> Parts:
    """The worked example with another first component."""
    components = metadata("bf16")["additive"]["components"]
    components[0] |= change
    return with_metadata({"components": components})


def read_all(path: Path, data: bytes) -> int:
    """Write a file, open it and decode every body; the number of entries found."""
    write_anew(path, data)
    with open_patch(path) as patch:
        return sum(
            len(part.positions)
            for tensor in patch.index.tensors.values()
            for row in tensor.chunks
            for part in patch.read_deltas(tensor, patch.index.chunk(row))
        )


refuse = partial(forged_patch.refuse, read=read_all)


@pytest.mark.parametrize(("parts", "kind"), [(GOLDEN, "bf16"), (INT8, "int8")])
def test_the_untouched_parts_are_accepted(tmp_path: Path, parts: Parts, kind: str) -> None:
    assert read_all(tmp_path / "x.patchc", parts.assemble()) == 5
    assert with_body(BODY[kind], parts).assemble() == parts.assemble()


def test_an_older_reader_refuses_the_feature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchc.formats.container.layout.KNOWN_FEATURES", 0)
    refuse(tmp_path, GOLDEN, "requires feature 0,", UnsupportedPatchError)


def test_unknown_features_beside_it_are_named(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.but(features=1 | 1 << 7), "feature 7,", UnsupportedPatchError)


def test_additive_chunks_without_the_feature(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.but(features=0), "does not say so")


def test_the_feature_without_additive_chunks(tmp_path: Path) -> None:
    exact = golden_parts().but(features=1, metadata=GOLDEN.metadata)
    refuse(tmp_path, exact, "mixes additive chunks")


@pytest.mark.parametrize("codec", [0, 1, 3, 255])
def test_other_codecs_beside_additive_ones(tmp_path: Path, codec: int) -> None:
    refuse(tmp_path, GOLDEN.with_columns(codecs=[codec, 2]), "mixes additive chunks")


@pytest.mark.parametrize(
    "digests",
    [
        {"result_digest": bytes(31) + b"\1"},
        {"result_digest": b"\1" + bytes(31)},
        {"result_digests": [b"\1" + bytes(7), bytes(8)]},
        {"result_digests": [bytes(8), bytes(7) + b"\1"]},
    ],
)
def test_a_promised_result_is_refused(tmp_path: Path, digests: dict[str, Any]) -> None:
    refuse(tmp_path, GOLDEN.with_columns(**digests), "promises a result")


@pytest.mark.parametrize("code", [*range(1, 11), *range(16, 23)])
def test_dtypes_that_nothing_can_be_added_to(tmp_path: Path, code: int) -> None:
    dtype = patchc.dtypes.BY_CODE[code].name
    parts = with_dtype(code).with_columns(dims=[8, *COLUMNS.dims[1:]])
    refuse(tmp_path, parts, f"'a' is {dtype}, to which nothing")


def test_a_replaced_body_is_found_by_verify_and_by_apply(tmp_path: Path) -> None:
    """No result digest stands behind an additive body: only the digest over all bodies does."""
    path, out = tmp_path / "x.patchc", tmp_path / "out.safetensors"
    path.write_bytes(GOLDEN.with_columns(bodies_digest=bytes(32)).assemble())
    base = write_base(tmp_path / "base.safetensors")
    with pytest.raises(PatchFormatError, match="digest over all chunk bodies"):
        patchc.verify(path)
    with pytest.raises(PatchFormatError, match="digest over all chunk bodies"):
        patchc.apply(path, base, out=out)
    assert {file.name for file in tmp_path.iterdir()} == {"x.patchc", "base.safetensors"}


def test_metadata_without_the_additive_key_is_refused(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.but(metadata=b'{"kind":"build"}'), "key 'additive' is missing")


@pytest.mark.parametrize("content", ["null", "[]", "3", '"bf16"'])
def test_an_additive_key_that_is_no_object(tmp_path: Path, content: str) -> None:
    parts = GOLDEN.but(metadata=f'{{"additive":{content}}}'.encode())
    refuse(tmp_path, parts, "key 'additive' is missing or not an object")


@pytest.mark.parametrize("value_type", ["fp4", "", "BF16", "x" * 5000])
def test_an_unknown_value_type_is_named(tmp_path: Path, value_type: str) -> None:
    parts = with_metadata({"value_type": value_type})
    refuse(tmp_path, parts, f"type '{value_type[:80]}' are not known", UnsupportedPatchError)


@pytest.mark.parametrize("value_type", [None, 1, ["bf16"], {}])
def test_a_value_type_that_is_no_text(tmp_path: Path, value_type: Any) -> None:
    refuse(tmp_path, with_metadata({"value_type": value_type}), "value_type is missing")


@pytest.mark.parametrize("components", [None, [], {}, "se", 17 * [{}]])
def test_components_out_of_number_are_refused(tmp_path: Path, components: Any) -> None:
    refuse(tmp_path, with_metadata({"components": components}), "1 to 16 additive components")


@pytest.mark.parametrize("component", [None, 1, [], "se"])
def test_a_component_that_is_no_object(tmp_path: Path, component: Any) -> None:
    refuse(tmp_path, with_metadata({"components": [component]}), "not an object")


@pytest.mark.parametrize("name", [None, 1, "", "s" * 65])
def test_a_component_without_a_name(tmp_path: Path, name: Any) -> None:
    refuse(tmp_path, with_component({"name": name}), "name is missing, empty or too long")


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", "\u202e"])
def test_a_component_of_an_unprintable_name(tmp_path: Path, name: str) -> None:
    refuse(tmp_path, with_component({"name": name}), "not printable")


def test_a_component_listed_twice_is_refused(tmp_path: Path) -> None:
    refuse(tmp_path, with_component({"name": "osm"}), "twice")


@pytest.mark.parametrize("scale", [None, "8", True, [8], {}])
def test_a_scale_that_is_missing_or_no_number(tmp_path: Path, scale: Any) -> None:
    refuse(tmp_path, with_component({"scale": scale}), "'se': its scale is missing or no number")


def test_a_scale_left_out_is_refused(tmp_path: Path) -> None:
    components = metadata("bf16")["additive"]["components"]
    del components[0]["scale"]
    refuse(tmp_path, with_metadata({"components": components}), "'se': its scale is missing")


@pytest.mark.parametrize("scale", ["1e400", "-1e400", "3.5e38", "1" + 300 * "0"])
def test_a_scale_that_fp32_does_not_hold(tmp_path: Path, scale: str) -> None:
    parts = GOLDEN.but(metadata=GOLDEN.metadata.replace(b"8.0", scale.encode()))
    refuse(
        tmp_path, parts, r"its scale is no finite fp32 number|beyond every num|more than 64 bits"
    )


def test_scales_at_the_edge_are_read(tmp_path: Path) -> None:
    for scale in (0, -0.0, 5e-324, (2 - 2**-23) * 2.0**127, -(2.0**127)):
        assert read_all(tmp_path / "x.patchc", with_component({"scale": scale}).assemble()) == 5


@pytest.mark.parametrize("entries", [None, -1, 2**63, 1.0, True, "2"])
def test_entries_that_are_no_count(tmp_path: Path, entries: Any) -> None:
    refuse(tmp_path, with_component({"entries": entries}), "'se': its entries are no count")


def test_a_false_sum_of_entries_is_found_by_verify(tmp_path: Path) -> None:
    path = tmp_path / "x.patchc"
    path.write_bytes(with_component({"entries": 3}).assemble())
    with pytest.raises(PatchFormatError, match=r"claims 3 entries of component 'se'.*hold 2"):
        patchc.verify(path)


def test_a_false_sum_of_entries_is_found_by_apply(tmp_path: Path) -> None:
    path, out = tmp_path / "x.patchc", tmp_path / "out.safetensors"
    path.write_bytes(with_component({"entries": 3}).assemble())
    with pytest.raises(PatchFormatError, match=r"claims 3 entries of component 'se'.*hold 2"):
        patchc.apply(path, write_base(tmp_path / "base.safetensors"), out=out)
    assert {file.name for file in tmp_path.iterdir()} == {"x.patchc", "base.safetensors"}


@pytest.mark.parametrize("entries", [1, 2, 4])
def test_the_record_counts_different_positions(tmp_path: Path, entries: int) -> None:
    match = "touches 3 words|out of range"
    refuse(tmp_path, with_body(BODY["bf16"], entries=entries), match)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("00", "ends early"),
        ("00 80", "ends early"),
        ("00 02", "ends early"),
        ("00 02 00", "ends early"),
        ("00 02 00 01", "ends early"),
        ("00 02 00 01 02", "ends early"),
        ("00 02 00 01 02 803C 00", "ends early"),
        (BODY["bf16"][:-2], "ends early"),
        (BODY["bf16"] + "00", "a component is unknown or out of order"),
        (BODY["bf16"] + "02", "a component is unknown or out of order"),
        ("02 02 00 01 02 803C 00BC", "a component is unknown or out of order"),
        ("01 01 00 01 00 803C 00 01 00 01 01 003D", "a component is unknown or out of order"),
        ("00 01 00 01 00 803C 00 01 00 01 01 003D", "a component is unknown or out of order"),
        ("00 00", "has no entries"),
        ("00 80 00", "has no entries"),
        ("00 02 10 01 02 803C 00BC", "out of range"),
        ("00 05 00 01 02 803C 00BC", "out of range"),
        ("00 01 00 01 0F 803C", "out of range"),
        ("00 02 00 01 0E 803C 00BC", "out of range"),
        ("00 01 00 06 FFFFFF FFFF00 803C", "out of range"),
        ("00 02 00 01 12 803C 00BC", "belong to nothing"),
        ("00 02 00 02 0200 803C 00BC", "belong to nothing"),
        ("00 FFFFFFFF0F 00 01 02 803C", "out of range"),
        ("00 02 00 FFFFFFFF0F 02 803C", "ends early"),
        ("00 FFFFFFFFFF01 00 01 02", "ends early"),
        ("00 02 00 01 02 807F 00BC", "not finite"),
        ("00 02 00 01 02 80FF 00BC", "not finite"),
        ("00 02 00 01 02 803C C17F", "not finite"),
    ],
)
def test_bodies_that_are_no_coding(tmp_path: Path, body: str, match: str) -> None:
    refuse(tmp_path, with_body(body), match)


def absmax(bits: str) -> str:
    return BODY["int8"].replace("0000803C", bits)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (absmax("0000C07F"), "absmax"),
        (absmax("0000807F"), "absmax"),
        (absmax("000080FF"), "absmax"),
        (absmax("000080BC"), "absmax"),
        (absmax("00000000"), "absmax"),
        (absmax("00000080"), "absmax"),
        (BODY["int8"].replace("7FC0", "80C0"), "-128"),
        (BODY["int8"][:-2], "ends early"),
        (BODY["int8"] + "00", "a component is unknown or out of order"),
        ("00 02 00 01 02 0000", "ends early"),
        ("00 02 00 01 02 0000803C 7F", "ends early"),
    ],
)
def test_int8_bodies_that_are_no_coding(tmp_path: Path, body: str, match: str) -> None:
    refuse(tmp_path, with_body(body, INT8), match)


def test_the_smallest_and_largest_absmax_are_read(tmp_path: Path) -> None:
    for bits in ("01000000", "FFFF7F7F"):
        assert read_all(tmp_path / "x.patchc", with_body(absmax(bits), INT8).assemble()) == 5


def test_a_value_that_reads_back_as_infinite_is_refused_when_merged(tmp_path: Path) -> None:
    """127 · fp32(m / 127) can exceed the largest fp32 number; no warning, one clear error."""
    forged = tmp_path / "x.patchc"
    forged.write_bytes(with_body(absmax("FFFF7F7F"), INT8).assemble())
    with pytest.raises(patchc.errors.NumericError, match="'a', flat index 0"):
        patchc.apply(forged, write_base(tmp_path / "b.safetensors"), out=tmp_path / "o.safetensors")
    assert not (tmp_path / "o.safetensors").exists()


def test_entries_that_a_body_cannot_hold_cost_no_memory(tmp_path: Path) -> None:
    forged = with_body("00 " + "00" * 17, LARGE, entries=1 << 22, words=1 << 22)
    # a map of the largest chunk's words fits; its positions would be four times as much
    read_or_refuse(tmp_path / "x.patchc", forged, 8 << 20, read_all)


def test_each_kind_of_patch_has_its_own_way_to_read(tmp_path: Path) -> None:
    for name, parts, method in (
        ("exact", golden_parts(), "read_deltas"), ("additive", GOLDEN, "read_changes"),
    ):  # fmt: skip
        path = tmp_path / name
        path.write_bytes(parts.assemble())
        with open_patch(path) as patch:
            record = patch.index.tensors["a"]
            with pytest.raises(UsageError, match=f"{name} (steps|values)"):
                getattr(patch, method)(record, patch.index.chunk(0))


@pytest.mark.parametrize("data", [additive_bytes("bf16"), additive_bytes("int8")])
def test_every_flipped_byte_and_truncation_is_noticed(tmp_path: Path, data: bytes) -> None:
    for at in range(len(data)):
        for damaged in (data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :], data[:at]):
            with pytest.raises((PatchFormatError, UnsupportedPatchError)):
                read_all(tmp_path / "x.patchc", damaged)


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(
        st.binary(max_size=60),
        st.binary(max_size=40).map(lambda rest: bytes.fromhex(BODY["bf16"])[:7] + rest),
        st.binary(max_size=40).map(lambda rest: bytes.fromhex(BODY["int8"])[:7] + rest),
    ),
    parts=st.sampled_from([GOLDEN, INT8, LARGE]),
    entries=st.integers(1, 5000) | st.just(1 << 22),
    words=st.sampled_from([4, 5000, 1 << 22]),
    dtype=st.sampled_from([11, 12, 13, 14, 15]),
)
def test_any_body_with_a_matching_digest(
    tmp_path: Path, body: bytes, parts: Parts, entries: int, words: int, dtype: int
) -> None:
    forged = with_dtype(dtype, with_body(body, parts, entries, words))
    # a map of the largest chunk's words fits; its positions would be four times as much
    read_or_refuse(tmp_path / "x.patchc", forged, 8 << 20, read_all)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["value_type", "components", "name", "scale", "entries"]), inner
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(json_values)
def test_any_metadata_is_read_or_refused(tmp_path: Path, content: Any) -> None:
    text = json.dumps({"additive": content}).encode()
    read_or_refuse(tmp_path / "x.patchc", GOLDEN.but(metadata=text), 8 << 20, read_all)
