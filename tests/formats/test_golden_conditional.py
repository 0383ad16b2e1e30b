"""Files of codec 3 without masks, one of them folded, as both readers read them."""

from __future__ import annotations

from pathlib import Path

import conditional_oracle as oracle
import numpy as np
import pytest
import second_reader
from golden_conditional import TENSORS, words_of, write_models
from tiny_checkpoints import tree

import patchc
from patchc.dtypes import BY_NAME
from patchc.formats import open_patch

FOLDER = Path(__file__).parent / "golden"
GOLDEN = {"conditional": 1, "fold": 2}
"""File → the side that it takes the base to."""


def steps_between(name: str, result: int) -> dict[int, int]:
    """Section 3.3, by the words themselves."""
    dtype, width, _ = TENSORS[name]
    half = 1 << (width - 1)
    floats = dtype in oracle.ORDERED

    def order(word: int) -> int:
        return word ^ (half - 1) if floats and word & half else word

    pairs = enumerate(zip(words_of(name)[0], words_of(name)[result], strict=True))
    steps = {at: (order(r) - order(b) + half) % (2 * half) - half for at, (b, r) in pairs}
    return {at: step for at, step in steps.items() if step}


@pytest.mark.parametrize("revert", [False, True])
@pytest.mark.parametrize("file", GOLDEN)
def test_both_readers_find_the_changes(file: str, revert: bool) -> None:
    path, result = FOLDER / f"{file}.patchc", GOLDEN[file]
    sides = {name: words_of(name)[result if revert else 0] for name in TENSORS}
    tensors, _ = second_reader.read(path.read_bytes(), sides, revert)
    with open_patch(path) as patch:
        for name, record in patch.index.tensors.items():
            assert tensors[name].changes == steps_between(name, result)
            words = np.array(sides[name], BY_NAME[TENSORS[name][0]].word)
            for chunk in map(patch.index.chunk, record.chunks):
                found = patch.read_changes(record, chunk, words, "base" if revert else "result")
                assert dict(zip(*(part.tolist() for part in found), strict=True)) == (
                    tensors[name].changes
                )


@pytest.mark.parametrize("file", GOLDEN)
def test_it_takes_the_base_to_the_result_and_back(tmp_path: Path, file: str) -> None:
    models = write_models(tmp_path)
    result = models[GOLDEN[file]]
    patchc.apply(FOLDER / f"{file}.patchc", models[0], out=tmp_path / "applied")
    patchc.revert(FOLDER / f"{file}.patchc", result, out=tmp_path / "reverted")
    assert tree(tmp_path / "applied") == tree(result)
    assert tree(tmp_path / "reverted") == tree(models[0])


def test_the_example_has_every_kind_of_population_and_table() -> None:
    populations, kinds, raw = set(), set(), False
    with open_patch(FOLDER / "conditional.patchc") as patch:
        data = patch.path.read_bytes()
        for name, record in patch.index.tensors.items():
            dtype, width, count = TENSORS[name]
            for row in map(patch.index.chunk, record.chunks):
                if row.codec == 3:
                    body = data[row.offset : row.offset + row.length]
                    chunk = oracle.Chunk(body, dtype, width, count, 1, row.entries)
                    populations |= {key[0] for key in chunk.levels}
                    kinds |= {table.kind for table in chunk.tables.values()}
                    raw |= any(t.kind == 3 and not t.slots for t in chunk.tables.values())
    assert populations == {"class", "low", "edge", "all"}
    assert kinds == {0, 1, 2, 3}
    assert raw


def test_the_folded_file_names_the_patches_that_it_was_made_of() -> None:
    with (
        open_patch(FOLDER / "conditional.patchc") as first,
        open_patch(FOLDER / "fold.patchc") as fold,
    ):
        assert fold.metadata["kind"] == "fold"
        one, other = fold.metadata["folded"]
        assert one == {"root": first.root.hex(), "result": first.index.result_digest.hex()}
        assert other["result"] == fold.index.result_digest.hex()
        assert fold.index.base_digest == first.index.base_digest


def test_todays_writer_makes_as_good_files(tmp_path: Path) -> None:
    """Their bodies may hold other choices."""
    models = write_models(tmp_path)
    words = {name: words_of(name)[0] for name in TENSORS}
    patches = [tmp_path / "conditional.patchc", tmp_path / "second.patchc"]
    for patch, pair in zip(patches, (models[:2], models[1:]), strict=True):
        patchc.diff(*pair, out=patch, chunk_bits=12)
    patchc.fold(patches, out=tmp_path / "fold.patchc", base=models[0])
    for name in GOLDEN:
        made, golden = ((folder / f"{name}.patchc").read_bytes() for folder in (tmp_path, FOLDER))
        assert second_reader.read(made, words)[0] == second_reader.read(golden, words)[0]
        assert len(made) <= len(golden) + 64
