"""Models with shards that were laid over others: the copies that do not count stay as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoints import normal, nudge, read_file, tree, write_file, write_index

import patchc
from patchc.errors import UnsupportedInputError

FILES = ("a.safetensors", "b.safetensors")
PLAIN = {name: normal((40, 30), "BF16", n) for n, name in enumerate("uvwx")}
OLD = normal((40, 30), "BF16", 9)


def _model(folder: Path, changed: bool, old: np.ndarray, place: int = 1) -> Path:
    """``w`` is in both files: as it counts in the last one, and as ``old`` in the first."""
    now = {n: nudge(v, 0.1, 5) if changed else v for n, v in PLAIN.items()}
    folder.mkdir()
    write_file(folder / FILES[0], {"v": now["v"], "w": old, "x": now["x"]})
    write_file(folder / FILES[1], {"w": now["w"], "u": now["u"]})
    write_index(folder, {"u": FILES[1], "v": FILES[0], "w": FILES[place], "x": FILES[0]})
    return folder


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return [_model(tmp_path / "base", False, OLD), _model(tmp_path / "tuned", True, OLD)]


@pytest.mark.parametrize("weights_only", [False, True])
def test_there_and_back(tmp_path: Path, models: list[Path], weights_only: bool) -> None:
    base, tuned = models
    before, patch = tree(base), tmp_path / "update.patchc"
    patchc.diff(base, tuned, out=patch, weights_only=weights_only)
    report = patchc.apply(patch, base, out=tmp_path / "applied")
    assert tree(tmp_path / "applied") == tree(tuned)
    assert report.nbytes == sum((tuned / name).stat().st_size for name in FILES)
    patchc.revert(patch, tuned, out=tmp_path / "reverted")
    assert tree(tmp_path / "reverted") == before
    assert patchc.verify(patch, tuned).state == "patched"
    patchc.apply(patch, base, in_place=True)
    assert tree(base) == tree(tuned)
    assert read_file(base / FILES[0])["w"].data == OLD.tobytes()


def test_other_copies_that_differ_are_refused(tmp_path: Path, models: list[Path]) -> None:
    base, tuned = models[0], _model(tmp_path / "other", True, nudge(OLD, 0.1, 1))
    patch = tmp_path / "update.patchc"
    with pytest.raises(UnsupportedInputError, match=r"'w' is stored in several .* a\.safetensors"):
        patchc.diff(base, tuned, out=patch)
    assert not patch.exists()
    patchc.diff(base, tuned, out=patch, weights_only=True)
    patchc.apply(patch, base, out=tmp_path / "applied")
    assert tree(tmp_path / "applied") == tree(models[1])


def test_a_patch_that_changes_headers_is_refused(tmp_path: Path, models: list[Path]) -> None:
    """Made from tidy models with the same tensors and the same header in one of two files."""
    tidy = [tmp_path / "tidy", tmp_path / "longer"]
    for folder, metadata in zip(tidy, ({}, {"format": "pt"}), strict=True):
        write_file(folder / FILES[0], {"v": PLAIN["v"], "w": OLD, "x": PLAIN["x"]})
        write_file(folder / FILES[1], {"w": PLAIN["w"], "u": PLAIN["u"]}, metadata)
        write_index(folder, {"u": FILES[1], "v": FILES[0], "w": FILES[1], "x": FILES[0]})
    patch = tmp_path / "update.patchc"
    with pytest.raises(UnsupportedInputError, match=r"'w' is stored in several .* a\.safetensors"):
        patchc.diff(tidy[0], tidy[1], out=patch)
    for folder in tidy:  # without the copies that do not count
        write_file(folder / FILES[0], {"v": PLAIN["v"], "x": PLAIN["x"]})
    patchc.diff(tidy[0], tidy[1], out=patch)
    with pytest.raises(UnsupportedInputError, match=r"'w' is stored .* the patch changes headers"):
        patchc.apply(patch, models[0], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_equal_copies_of_which_loaders_take_different_ones(tmp_path: Path) -> None:
    """They are one model; but a patch would change one copy, and loaders would then disagree."""
    base = _model(tmp_path / "base", False, PLAIN["w"], place=0)
    tuned = _model(tmp_path / "tuned", True, OLD)
    before, patch = tree(tmp_path), tmp_path / "update.patchc"
    with pytest.raises(UnsupportedInputError, match=r"'w' is stored in a.*, where the index"):
        patchc.diff(base, tuned, out=patch)
    assert tree(tmp_path) == before
    patchc.diff(base, tuned, out=patch, weights_only=True)
    assert patchc.verify(patch, base).state == "base"
    with pytest.raises(UnsupportedInputError, match="the index places it there; merge the shards"):
        patchc.apply(patch, base, out=tmp_path / "out")
    with pytest.raises(UnsupportedInputError, match="would change one copy alone; merge the"):
        patchc.apply(patch, base, in_place=True)
    patch.unlink()
    assert tree(tmp_path) == before
