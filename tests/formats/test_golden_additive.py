"""The second worked example of the specification, held together with files and code."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
import second_codecs
import second_reader
from golden_additive import (
    PARTS,
    RESULTS,
    TENSORS,
    additive_bytes,
    metadata,
    tensor,
    write_base,
)
from spec_listing import SPEC, listing, sections
from tiny_checkpoints import read_file, write_file

import patchc
from patchc.dtypes import MERGEABLE
from patchc.errors import NumericError, WrongBaseError
from patchc.formats import open_patch
from patchc.formats.container.layout import ADDITIVE, KNOWN_FEATURES, PROLOGUE, UPDATE

HERE = Path(__file__).parent
FILES = {kind: HERE / "golden" / f"additive-{kind}.patchc" for kind in ("bf16", "int8")}


def test_the_specification_lists_the_file() -> None:
    data = FILES["bf16"].read_bytes()
    _, index, text = sections(data)
    assert listing("9.1") == data
    assert listing("9.2") == index
    assert f"`{text.decode()}`" in SPEC.split("### 9.3 ")[1]
    bodies = sections(FILES["int8"].read_bytes())[0][PROLOGUE.size :]
    assert listing("9.4") == bodies


@pytest.mark.parametrize("value_type", FILES)
def test_todays_writer_makes_the_files(value_type: str) -> None:
    assert sections(additive_bytes(value_type)) == sections(FILES[value_type].read_bytes())


@pytest.mark.parametrize("value_type", FILES)
def test_the_reader_finds_the_entries_worked_out_by_hand(value_type: str) -> None:
    with open_patch(FILES[value_type]) as patch:
        assert patch.metadata == metadata(value_type)
        assert patch.additive is not None
        assert patch.additive.to_json() == metadata(value_type)["additive"]
        assert patch.index.result_digest == bytes(32)
        for name, record in patch.index.tensors.items():
            found = [
                (part.component, *(getattr(part, f).tolist() for f in FIELDS))
                for row in record.chunks
                for part in patch.read_deltas(record, patch.index.chunk(row))
            ]
            assert found == PARTS[value_type].get(name, [])


FIELDS = ("positions", "values", "absmax")


@pytest.mark.parametrize("value_type", FILES)
def test_a_reader_made_from_the_specification_agrees(value_type: str) -> None:
    tensors, text = second_reader.read(FILES[value_type].read_bytes())
    assert text == metadata(value_type)
    fine = -(2.0**-7)
    if value_type == "int8":
        unit = np.float32(2.0**-6) / np.float32(127)
        fine = float(np.float32(-64) * unit)
    assert tensors["a"].deltas == [{0: 2.0**-6, 2: fine}, {2: 2.0**-5, 3: 2.0**-5}]
    assert tensors["b"].deltas == [{}, {1: 2.0**-5}]
    assert tensors["c"].deltas == [{}, {}]


def test_adding_follows_the_page(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    patchc.apply(FILES["bf16"], write_base(tmp_path / "base.safetensors"), out=out)
    assert read_file(out) == {name: tensor(name, words) for name, words in RESULTS.items()}


@pytest.mark.parametrize("value_type", FILES)
@pytest.mark.parametrize(
    ("alpha", "beta"), [(8.0, -0.5), (2.0**24, 3.0), (1e-3, 0.1), (1e8, -1e8), (0.7, 2.0**100)]
)
def test_adding_equals_single_fp32_operations(
    tmp_path: Path, value_type: str, alpha: float, beta: float
) -> None:
    """The order and the single roundings of section 6.3, where components overlap."""
    tensors, _ = second_reader.read(FILES[value_type].read_bytes())
    out = tmp_path / "out.safetensors"
    model = write_base(tmp_path / "base.safetensors")
    patchc.apply(FILES[value_type], model, out=out, alpha=alpha, beta=beta)
    words = list(struct.unpack("<2I", read_file(out)["b"].data))
    value = second_codecs.fp32(
        0.0 + second_codecs.fp32(second_codecs.fp32(beta) * tensors["b"].deltas[1][1])
    )
    assert words == [0x3F800000, struct.unpack("<I", struct.pack("<f", value))[0]]
    found = np.frombuffer(read_file(out)["a"].data, "<u2").tolist()
    for at, word in enumerate(TENSORS["a"][2]):
        value = struct.unpack("<f", struct.pack("<I", word << 16))[0]
        for scale, deltas in zip((alpha, beta), tensors["a"].deltas, strict=True):
            if at in deltas:
                product = second_codecs.fp32(second_codecs.fp32(scale) * deltas[at])
                value = second_codecs.fp32(value + product)
        bits = struct.unpack("<I", struct.pack("<f", value))[0]
        assert found[at] == (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def test_an_infinity_on_the_way_is_refused(tmp_path: Path) -> None:
    """At position 2 the components cancel; fp32 overflows before they do."""
    model = write_base(tmp_path / "base.safetensors")
    tensors = {name: read_file(model)[name] for name in TENSORS}
    tensors["a"] = tensor("a", [0, 0, 0xFF7F, 0])
    further = write_file(tmp_path / "further.safetensors", tensors)
    out = tmp_path / "out.safetensors"
    options = {"alpha": 3.4e38, "beta": 8.5e37}
    with pytest.raises(NumericError, match="'a', flat index 2"):
        patchc.apply(FILES["bf16"], further, out=out, onto_descendant=True, **options)
    assert not out.exists()


def test_only_the_example_s_base_is_taken(tmp_path: Path) -> None:
    model = write_base(tmp_path / "base.safetensors")
    tensors = read_file(model) | {"c": tensor("c", [1, 2, 4])}
    other = write_file(tmp_path / "other.safetensors", tensors)
    with pytest.raises(WrongBaseError, match="'c'"):
        patchc.apply(FILES["bf16"], other, out=tmp_path / "out.safetensors")


def test_the_specification_lists_every_feature_and_dtype() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| 2\.\d", SPEC.split("### 5.2 ")[1], re.M)
    assert rows == [("0", "additive"), ("1", "update")]
    assert (ADDITIVE, UPDATE, KNOWN_FEATURES) == (1, 2, 3)
    listed = re.search(r"only tensors of dtype (.*) have chunks", SPEC)
    assert listed is not None
    assert sorted(re.findall(r"\w*\d\w*", listed[1])) == sorted(MERGEABLE)
