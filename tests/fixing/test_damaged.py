"""What a fix keeps, damaged: the file is named, and what to do, and nothing else is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fix_runs import FILES, fix

from patchc.errors import EvaluateError, PatchcError


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def not_finite(path: Path) -> None:
    path.write_text(path.read_text().replace("}", ', "more": NaN}', 1))


def of_lists(path: Path) -> None:
    path.write_text("[[]]\n")


def of_nothing(path: Path) -> None:
    path.write_text("{}\n")


@pytest.mark.parametrize("damage", [cut, not_finite, of_lists, of_nothing])
@pytest.mark.parametrize(
    "name",
    ["fitted/found.json", "tested/found.json", "split/split.json", "split/test/harmful.jsonl"],
)
def test_a_damaged_result_is_named(
    folder: Path, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    out = shutil.copytree(folder / "fixed", tmp_path / "fixed")
    path = out / "work" / name
    before = {one: (out / one).read_bytes() for one in FILES}
    damage(path)
    with pytest.raises(PatchcError, match=f"{name}.*remove .*, and it is made again") as refused:
        fix(folder, out)
    assert isinstance(refused.value, EvaluateError)
    assert len(str(refused.value)) < 800
    assert {one: (out / one).read_bytes() for one in FILES} == before
