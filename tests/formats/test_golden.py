"""The worked example of the specification, held together byte by byte with file and code."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import second_reader
from blake3 import blake3
from golden_patch import CHANGES, MASK, METADATA, TENSORS, golden_bytes
from spec_listing import SPEC, listing, sections

from patchc.dtypes import BY_CODE, BY_NAME
from patchc.formats import open_patch
from patchc.kernels.philox import retention_stream, retention_threshold
from patchc.kernels.philox.reference import draws

HERE = Path(__file__).parent
GOLDEN = HERE / "golden" / "minimal.patchc"


def test_the_specification_lists_the_file() -> None:
    data = GOLDEN.read_bytes()
    _, index, metadata = sections(data)
    assert listing("8.1") == data
    assert listing("8.2") == index
    assert f"`{metadata.decode()}`" in SPEC.split("### 8.3 ")[1]


def test_todays_writer_makes_the_file() -> None:
    assert sections(golden_bytes()) == sections(GOLDEN.read_bytes())


def test_the_reader_finds_the_changes_worked_out_by_hand() -> None:
    with open_patch(GOLDEN) as patch:
        assert patch.metadata == METADATA
        assert list(patch.index.tensors) == list(TENSORS)
        for name, tensor in patch.index.tensors.items():
            dtype, shape, *_ = TENSORS[name]
            assert (tensor.dtype.name, tensor.shape) == (dtype, shape)
            found = [patch.read_changes(tensor, patch.index.chunk(row)) for row in tensor.chunks]
            wanted = [CHANGES[name]] if name in CHANGES else []
            assert [(p.tolist(), s.tolist()) for p, s in found] == wanted


def test_a_reader_made_from_the_specification_agrees() -> None:
    tensors, metadata = second_reader.read(GOLDEN.read_bytes())
    assert metadata == METADATA
    for name, (dtype, shape, *_) in TENSORS.items():
        assert (tensors[name].dtype, tensors[name].shape) == (BY_NAME[dtype].code, shape)
        positions, steps = CHANGES.get(name, ([], []))
        assert tensors[name].changes == dict(zip(positions, steps, strict=True))


def test_the_specification_lists_every_dtype() -> None:
    table = SPEC.split("### 3.1 ")[1].split("### 3.2 ")[0]
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (\d+) \| (\d) \| (yes|no) \|", table, re.M)
    assert {int(row[0]): row[1:] for row in rows} == {
        code: (d.name, str(d.bits), str(d.word_bytes), "yes" if d.total_order else "no")
        for code, d in BY_CODE.items()
    }


def test_digests_and_steps_follow_the_page() -> None:
    """Sections 3.3 and 4.2 recomputed with plain Python from the words of the example."""
    models: list[list[bytes]] = [[], []]
    patch_bytes = GOLDEN.read_bytes()
    with open_patch(GOLDEN) as patch:
        for name, (dtype_name, shape, base, result) in TENSORS.items():
            dtype = BY_NAME[dtype_name]
            positions, steps = CHANGES.get(name, ([], []))
            stepped = dict(zip(positions, steps, strict=True))
            for at, word in enumerate(base):
                moved = (order(word, dtype.bits, dtype.total_order) + stepped.get(at, 0)) % (
                    1 << dtype.bits
                )
                assert order(moved, dtype.bits, dtype.total_order) == result[at]
            for side, words in enumerate((base, result)):
                data = b"".join(word.to_bytes(dtype.word_bytes, "little") for word in words)
                text = struct.pack(f"<BB{len(shape)}Q", len(dtype_name), len(shape), *shape)
                text += dtype_name.encode() + (blake3(data).digest() if data else b"")
                digest = blake3(text, derive_key_context="patchc 2026-11 v1 tensor").digest()
                models[side].append(struct.pack("<I", len(name)) + name.encode() + digest)
                if side == 0:
                    pinned = name in CHANGES or not words
                    stored = None if pinned else digest[:8]
                    assert patch.index.tensors[name].digest == stored
        context = "patchc 2026-11 v1 model"
        base_model, result_model = (
            blake3(b"".join(model), derive_key_context=context).digest() for model in models
        )
        bodies = [blake3(body).digest() for body in (patch_bytes[16:22], patch_bytes[22:27])]
        context = "patchc 2026-11 v1 bodies"
        whole = blake3(b"".join(bodies), derive_key_context=context).digest()
        assert patch.index.bodies_digest == whole
        assert patch.index.base_digest == base_model
        assert patch.index.result_digest == result_model


def test_the_draws_of_the_page() -> None:
    """Section 4.6: the numbers on the page, the second reader's and the kernel's."""
    listed = re.search(r"draws of words 0 to 3 are ([\d, ]+) and (\d+)", SPEC)
    assert listed is not None
    numbers = [int(number) for number in f"{listed[1]}, {listed[2]}".split(", ")]
    with open_patch(GOLDEN) as patch:
        assert patch.index.masks == (MASK,)
    stream = retention_stream(MASK.component, "a")
    assert draws(MASK.seed, stream, 0, 4).tolist() == numbers
    drawn = [second_reader.draw(MASK.component, MASK.seed, "a", i) for i in range(4)]
    assert drawn == numbers
    assert [i for i in range(4) if drawn[i] < MASK.threshold] == [0, 2, 3]
    assert retention_threshold(0.3) == MASK.threshold


def order(word: int, width: int, float_order: bool) -> int:
    """The order integer of a word, and the word of an order integer (section 3.3)."""
    return word ^ ((1 << (width - 1)) - 1) if float_order and word >> (width - 1) else word
