"""The worked example of an update, held together byte by byte with file, code and both readers."""

from __future__ import annotations

import struct
from pathlib import Path

import second_reader
from golden_update import (
    BASE,
    BASE_CONFIG,
    CHANGES,
    RESULT,
    RESULT_CONFIG,
    TEMPLATE,
    write_golden_models,
)
from spec_listing import SPEC, listing, sections
from tiny_checkpoints import tree

import patchc
from patchc.dtypes import BY_NAME

GOLDEN = Path(__file__).parent / "golden" / "update.patchc"


def test_the_specification_lists_the_file() -> None:
    data = GOLDEN.read_bytes()
    _, index, metadata = sections(data)
    assert listing("10.1") == data
    assert listing("10.2") == index
    assert f"`{metadata.decode()}`" in SPEC.split("### 10.3 ")[1]


def test_it_takes_the_base_to_the_result_and_back(tmp_path: Path) -> None:
    base, result = write_golden_models(tmp_path)
    patchc.apply(GOLDEN, base, out=tmp_path / "applied")
    patchc.revert(GOLDEN, result, out=tmp_path / "reverted")
    assert tree(tmp_path / "applied") == tree(result)
    assert tree(tmp_path / "reverted") == tree(base)


def test_todays_writer_makes_as_good_a_file(tmp_path: Path) -> None:
    """But for the zlib streams, which another library may write in other bytes, and statistics."""
    base, result = write_golden_models(tmp_path)
    patchc.diff(base, result, out=tmp_path / "update.patchc", chunk_bits=12, codec="rice")
    written = second_reader.read_update((tmp_path / "update.patchc").read_bytes())
    assert written[2].pop("entropy")
    assert written[2].pop("coded")
    assert written == second_reader.read_update(GOLDEN.read_bytes())


def test_a_reader_made_from_the_specification_agrees() -> None:
    """Steps are those worked out by hand, and lead to the words of the table."""
    tensors, files, _ = second_reader.read_update(GOLDEN.read_bytes())
    assert {name: t.changes for name, t in tensors.items() if t.changes} == CHANGES
    names = {"base": ["a", "b", "old"], "result": ["a", "+b", "+new"]}
    for side, table in (("base", BASE), ("result", RESULT)):
        assert [name.lstrip("+") for name in names[side]] == list(table)
        for name, (dtype, shape, _) in zip(names[side], table.values(), strict=True):
            found = tensors[name]
            assert found.dtype == BY_NAME[dtype].code
            assert (found.shape if side == "base" else found.result_shape) == shape
    assert tensors["old"].reference == "new"
    assert tensors["+new"].reference == "old"
    grown = [*BASE["a"][2], 0, 0]
    assert stepped(grown, tensors["a"].changes, 16) == RESULT["a"][2]
    narrow = [as_bf16(word) for word in BASE["b"][2]]
    assert stepped(narrow, tensors["+b"].changes, 16) == RESULT["b"][2]
    wide = [0 if word == 0x7F80 else word << 16 for word in RESULT["b"][2]]
    back = {position: -step for position, step in tensors["b"].changes.items()}
    assert stepped(wide, back, 32) == BASE["b"][2]
    assert files["config.json"].on(1, BASE_CONFIG) == RESULT_CONFIG
    assert files["config.json"].on(0, RESULT_CONFIG) == BASE_CONFIG
    assert files["chat_template.jinja"].on(1, None) == TEMPLATE
    assert files["chat_template.jinja"].on(0, TEMPLATE) is None


def stepped(words: list[int], steps: dict[int, int], width: int) -> list[int]:
    """Section 3.3, of a dtype with float order."""

    def order(word: int) -> int:
        return word ^ ((1 << (width - 1)) - 1) if word >> (width - 1) else word

    return [order((order(word) + steps.get(at, 0)) % (1 << width)) for at, word in enumerate(words)]


def as_bf16(word: int) -> int:
    """An fp32 word whose value lies next to a BF16 number; 0 where it is not finite."""
    value = struct.unpack("<f", struct.pack("<I", word))[0]
    return 0 if value in (float("inf"), float("-inf")) else (word + 0x8000) >> 16
