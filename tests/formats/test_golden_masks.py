"""The worked example of retention masks, held together byte by byte with file, page and readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import second_reader
from golden_masks import BASE, GROUPS, MASKS, METADATA, ROWS, changes, golden_bytes, result
from spec_listing import SPEC, listing, sections

from patchc.formats import open_patch

GOLDEN = Path(__file__).parent / "golden" / "masks.patchc"


def test_the_specification_lists_the_file() -> None:
    data = GOLDEN.read_bytes()
    _, index, metadata = sections(data)
    assert listing("11.1") == data
    assert listing("11.2") == index
    assert f"`{metadata.decode()}`" in SPEC.split("### 11.3 ")[1]
    for name in ("a", "b"):
        assert f"`{GROUPS[name]}`" in SPEC


def test_todays_writer_makes_as_good_a_file() -> None:
    """Its bodies may hold other choices."""
    made = golden_bytes()
    assert second_reader.read(made, BASE) == second_reader.read(GOLDEN.read_bytes(), BASE)
    assert second_reader.read_index(sections(made)[1]).mask_rows == list(ROWS.values())


@pytest.mark.parametrize("revert", [False, True])
def test_both_readers_find_the_changes_worked_out_by_hand(revert: bool) -> None:
    sides = {name: result(name) if revert else BASE[name] for name in BASE}
    tensors, metadata = second_reader.read(GOLDEN.read_bytes(), sides, revert)
    assert metadata == METADATA
    with open_patch(GOLDEN) as patch:
        assert patch.index.masks == MASKS
        for name, record in patch.index.tensors.items():
            (chunk,) = map(patch.index.chunk, record.chunks)
            assert chunk.masks == ROWS[name]
            words = np.array(sides[name], "<u2")
            positions, steps = patch.read_changes(
                record, chunk, words, "base" if revert else "result"
            )
            found = dict(zip(positions.tolist(), steps.tolist(), strict=True))
            assert found == tensors[name].changes == changes(name)


def test_the_groups_on_the_page_follow_from_its_draws() -> None:
    index = second_reader.read_index(sections(GOLDEN.read_bytes())[1])
    for chunk, name in enumerate("ab"):
        members = second_reader.groups(index, chunk, name, 0, 88)
        assert "".join(map(str, members or [])) == GROUPS[name]
