"""Whole files: what is written is read back, by both readers, in any order."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
import second_reader
from forged_patch import write_anew
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spec_listing import sections

from patchc.dtypes import BY_NAME
from patchc.errors import UnsupportedInputError, UsageError
from patchc.formats import PatchWriter, RetentionMask, encode_chunk, open_patch
from patchc.hashing import chunk_digest

CHUNK = 1 << 12

Model = dict[str, tuple[str, tuple[int, ...], dict[int, int]]]
"""Name → dtype, shape, position → step."""

names = st.text(
    st.characters(categories=["L", "N", "P"], exclude_characters="/\\"), min_size=1, max_size=30
)


@st.composite
def models(draw: st.DrawFn) -> Model:
    model: Model = {}
    for name in draw(st.lists(names, unique=True, max_size=5)):
        dtype = BY_NAME[draw(st.sampled_from(["BF16", "F32", "I8", "F64", "U16"]))]
        shape = draw(st.sampled_from([(), (1,), (0, 4), (3, 5), (2, 64, 64), (9001,)]))
        words, half = dtype.words(shape), 1 << (dtype.word_bits - 1)
        steps = st.one_of(st.integers(-2, 2), st.integers(-half, half - 1)).filter(bool)
        found = st.dictionaries(st.integers(0, max(words - 1, 0)), steps, max_size=20)
        model[name] = (dtype.name, shape, draw(found) if words else {})
    return model


def write(model: Model, metadata: dict[str, object]) -> bytes:
    file = io.BytesIO()
    writer = PatchWriter(file, CHUNK)
    for name in sorted(model, key=str.encode):
        dtype_name, shape, found = model[name]
        dtype = BY_NAME[dtype_name]
        for number in sorted({position // CHUNK for position in found}):
            inside = sorted(
                (p - number * CHUNK, s) for p, s in found.items() if p // CHUNK == number
            )
            chunk = encode_chunk(
                number,
                np.array([position for position, _ in inside], np.uint32),
                np.array([step for _, step in inside], np.int64),
                min(CHUNK, dtype.words(shape) - number * CHUNK),
                dtype,
                bytes(32),
                bytes(32),
            )
            writer.add_chunk(chunk)
        writer.end_tensor(name, dtype, shape, chunk_digest(np.zeros(1, np.uint8)))
    writer.finish(metadata, bytes(range(32)), bytes(32))
    return file.getvalue()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(models(), st.randoms(use_true_random=False))
def test_both_readers_give_back_what_was_written(
    tmp_path: Path, model: Model, order: random.Random
) -> None:
    metadata = {"kind": "diff", "note": "Größe"}
    data = write(model, metadata)
    found: dict[str, dict[int, int]] = {name: {} for name in model}
    with open_patch(write_anew(tmp_path / "x.patchc", data)) as patch:
        assert patch.metadata == metadata
        assert patch.index.base_digest == bytes(range(32))
        assert list(patch.index.tensors) == sorted(model, key=str.encode)
        rows = [(t, row) for t in patch.index.tensors.values() for row in t.chunks]
        order.shuffle(rows)
        for tensor, row in rows:
            chunk = patch.index.chunk(row)
            assert patch.index.find(tensor, chunk.number) == chunk
            positions, steps = patch.read_changes(tensor, chunk)
            absolute = (positions.astype(np.int64) + chunk.number * CHUNK).tolist()
            found[tensor.name] |= dict(zip(absolute, steps.tolist(), strict=True))
        for tensor in patch.index.tensors.values():
            assert (tensor.dtype.name, tensor.shape) == model[tensor.name][:2]
            assert patch.index.find(tensor, 1 << 31) is None
    assert found == {name: changes for name, (_, _, changes) in model.items()}
    tensors, other_metadata = second_reader.read(data)
    assert other_metadata == metadata
    assert {name: tensor.changes for name, tensor in tensors.items()} == found


@pytest.mark.parametrize("codec", ["rice", "conditional"])
@pytest.mark.parametrize("words", [0, 10, CHUNK - 1, CHUNK + 1])
def test_words_that_are_not_the_chunks_are_not_changed(
    tmp_path: Path, codec: str, words: int
) -> None:
    base, dtype = np.arange(CHUNK, dtype=np.uint16), BY_NAME["BF16"]
    at, by = np.arange(0, CHUNK, 3, np.uint32), np.ones(-(-CHUNK // 3), np.int64)
    digest, given = chunk_digest(base), base if codec == "conditional" else None
    file = io.BytesIO()
    writer = PatchWriter(file, CHUNK)
    writer.add_chunk(encode_chunk(0, at, by, CHUNK, dtype, digest, digest, given))
    writer.end_tensor("t", dtype, (CHUNK,), digest)
    writer.finish({}, bytes(32), bytes(32))
    (tmp_path / "x.patchc").write_bytes(file.getvalue())
    memory = np.zeros(2 * CHUNK, np.uint16)
    with open_patch(tmp_path / "x.patchc") as patch:
        tensor, chunk = patch.index.tensors["t"], patch.index.chunk(0)
        assert patch.needs_words(chunk) == (codec == "conditional")
        with pytest.raises(UsageError, match="'t', chunk 0: it "):
            patch.change_words(tensor, chunk, memory[:words])
    assert not memory.any()


@pytest.mark.parametrize("codec", ["rice", "conditional"])
def test_what_changes_is_kept_where_asked(tmp_path: Path, codec: str) -> None:
    base, dtype = np.arange(CHUNK, dtype=np.uint16), BY_NAME["BF16"]
    at, by = np.arange(0, CHUNK, 3, np.uint32), np.ones(-(-CHUNK // 3), np.int64)
    digest, given = chunk_digest(base), base if codec == "conditional" else None
    file = io.BytesIO()
    writer = PatchWriter(file, CHUNK)
    writer.add_chunk(encode_chunk(0, at, by, CHUNK, dtype, digest, digest, given))
    writer.end_tensor("t", dtype, (CHUNK,), digest)
    writer.finish({}, bytes(32), bytes(32))
    (tmp_path / "x.patchc").write_bytes(file.getvalue())
    words = base.copy()
    with open_patch(tmp_path / "x.patchc") as patch:
        tensor, chunk = patch.index.tensors["t"], patch.index.chunk(0)
        for target in ("result", "base"):
            before = words.copy()
            kept = np.empty(len(at), np.uint32), np.empty(len(at), np.uint16)
            patch.change_words(tensor, chunk, words, target, kept)
            np.testing.assert_array_equal(kept[0], at)
            np.testing.assert_array_equal(kept[1], before[at])
            assert (words != before).sum() == len(at)
    np.testing.assert_array_equal(words, base)


def test_the_writer_never_seeks() -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    writer = PatchWriter(pipe, CHUNK)  # type: ignore[arg-type]
    writer.end_tensor("a", BY_NAME["U8"], (3,), bytes(32))
    writer.finish({}, bytes(32), bytes(32))
    assert second_reader.read(pipe.data)[0]["a"].shape == (3,)


def test_ranks_that_no_reader_takes_are_not_written() -> None:
    writer = PatchWriter(io.BytesIO(), CHUNK)
    with pytest.raises(UnsupportedInputError, match="dimensions"):
        writer.end_tensor("a", BY_NAME["U8"], (1,) * 17, bytes(32))


def test_masks_are_read_back_by_both_readers(tmp_path: Path) -> None:
    masks = (RetentionMask("se", 2**64 - 1, 2**32), RetentionMask("größe", 0, 0))
    file = io.BytesIO()
    writer = PatchWriter(file, CHUNK, masks=masks)
    writer.finish({}, bytes(32), bytes(32))
    (tmp_path / "x.patchc").write_bytes(file.getvalue())
    with open_patch(tmp_path / "x.patchc") as patch:
        assert patch.index.masks == masks
    *_, index, _ = sections(file.getvalue())
    found = second_reader.read_index(index).masks
    assert found == [(mask.component, mask.seed, mask.threshold) for mask in masks]


@pytest.mark.parametrize(
    "masks",
    [
        [RetentionMask("se", 1, 1)] * 17,
        [RetentionMask("", 1, 1)],
        [RetentionMask("s" * 65, 1, 1)],
        [RetentionMask("s\n", 1, 1)],
        [RetentionMask("se", -1, 1)],
        [RetentionMask("se", 2**64, 1)],
        [RetentionMask("se", 1, -1)],
        [RetentionMask("se", 1, 2**32 + 1)],
    ],
)
def test_masks_that_no_reader_takes_are_not_written(masks: list[RetentionMask]) -> None:
    with pytest.raises(UnsupportedInputError, match="mask"):
        PatchWriter(io.BytesIO(), CHUNK, masks=masks)


def test_names_above_their_cap_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchc.formats.container.layout.MAX_NAMES", 5)
    writer = PatchWriter(io.BytesIO(), CHUNK)
    for name in ("aaa", "aab"):
        writer.end_tensor(name, BY_NAME["U8"], (3,), bytes(32))
    with pytest.raises(UnsupportedInputError, match="too long for a patch file"):
        writer.finish({}, bytes(32), bytes(32))


def test_a_realistic_index_is_small() -> None:
    """What 272 tensors and 300 chunks cost beside bodies: digests, and a little more."""
    file = io.BytesIO()
    writer = PatchWriter(file)
    draw, chunks, bodies, unpinned = random.Random(0), 0, 0, 0
    for i in sorted(map(str, range(34))):
        for part in ("q_proj", "k_proj", "v_proj", "o_proj", "up", "gate", "down", "norm"):
            count = 2 if part == "up" else 0 if part == "norm" else 1
            for number in range(count):
                entries = draw.randrange(1000, 20_000)
                positions = np.sort(np.array(draw.sample(range(1 << 19), entries), np.uint32))
                coded = encode_chunk(
                    number, positions, np.ones(entries, np.int64), 1 << 19, BY_NAME["BF16"],
                    draw.randbytes(32), draw.randbytes(32),
                )  # fmt: skip
                writer.add_chunk(coded)
                chunks, bodies = chunks + 1, bodies + len(coded.body)
            name = f"model.layers.{i}.{part}.weight"
            shape = (576, 1536) if part != "up" else (1536, 1024)
            writer.end_tensor(name, BY_NAME["BF16"], shape, draw.randbytes(32))
            unpinned += not count
    writer.finish({"kind": "diff"}, draw.randbytes(32), draw.randbytes(32))
    digests = 4 * 32 + 24 * chunks + 8 * unpinned
    assert chunks == 272
    assert len(file.getvalue()) - bodies - digests < 6 * chunks


@pytest.mark.parametrize("name", ["", "a\ud800", "a/b", "a\\b", "a\nb", "x" * 4097])
def test_names_that_no_reader_takes_are_not_written(name: str) -> None:
    writer = PatchWriter(io.BytesIO(), CHUNK)
    with pytest.raises(UnsupportedInputError, match="rename"):
        writer.end_tensor(name, BY_NAME["U8"], (3,), bytes(32))
