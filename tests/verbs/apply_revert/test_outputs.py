"""Which outputs apply and revert accept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from directions import Direction
from tiny_checkpoints import (
    tree,
    write_file,
)

from patchc.errors import (
    OutputError,
    UsageError,
)


def _make_occupied(_direction: Direction, out: Path) -> Path:
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    return out


def _make_file(_direction: Direction, out: Path) -> Path:
    out.write_text("keep")
    return out


def _make_broken_link(_direction: Direction, out: Path) -> Path:
    out.symlink_to("nowhere")
    return out


def _make_link_to_the_input(direction: Direction, out: Path) -> Path:
    out.symlink_to(direction.source)
    return out


def _inside(direction: Direction, _out: Path) -> Path:
    return direction.source / "deep" / "out"


def _around(direction: Direction, _out: Path) -> Path:
    return direction.source.parent


def _dotted(direction: Direction, _out: Path) -> Path:
    return direction.source / ".." / direction.source.name


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_make_occupied, "not empty"),
        (_make_file, "already exists"),
        (_make_broken_link, "broken symbolic link"),
        (_make_link_to_the_input, "is the input itself"),
        (_inside, "inside the input"),
        (_around, "contains the input"),
        (_dotted, "is the input itself"),
    ],
)
def test_an_occupied_output_is_refused(
    tmp_path: Path,
    direction: Direction,
    make: Callable[[Direction, Path], Path],
    message: str,
    dry_run: bool,
) -> None:
    out = make(direction, tmp_path / "out")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=message):
        direction.run(out, dry_run=dry_run)
    assert tree(tmp_path) == before


def test_a_folder_for_a_file_is_refused(tmp_path: Path, direction: Direction) -> None:
    model = write_file(tmp_path / "one.safetensors", direction.source_tensors)
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="name a file"):
        direction.run(tmp_path / "out", model)


@pytest.mark.parametrize("linked", [False, True])
def test_an_empty_folder_is_filled(tmp_path: Path, direction: Direction, linked: bool) -> None:
    out = real = tmp_path / "out"
    real.mkdir()
    if linked:
        out = tmp_path / "link"
        out.symlink_to(real)
    direction.run(out)
    assert tree(real) == tree(direction.target)
    assert out.is_symlink() == linked


def test_threads_out_of_range_are_refused(tmp_path: Path, direction: Direction) -> None:
    with pytest.raises(UsageError, match="threads"):
        direction.run(tmp_path / "out", threads=0)
