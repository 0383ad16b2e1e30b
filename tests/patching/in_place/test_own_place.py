"""A run in place stays inside the model: shared files are refused, and not changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from in_place_directions import CHANGED, FIRST, SECOND, Direction, refused
from tiny_checkpoints import read_model, tree, write_file, write_model

from patchc.errors import OutputError, UnsupportedInputError


def _snapshot(direction: Direction, cache: Path, shared: bool) -> Path:
    """The model as a hub's cache has it; with ``shared`` its blobs lie in a store of all."""
    home = cache / "models--org--chat"
    snapshot = home / "snapshots" / "0f3a"
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    for number, path in enumerate(sorted(direction.source.glob("*.*"))):
        blob = home / "blobs" / f"b{number}"
        if shared:
            store = cache / "blobs" / "4c" / f"4c{number}"
            store.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, store)
            blob.symlink_to(store)
        else:
            shutil.copyfile(path, blob)
        (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
    if shared:
        (cache / "blobs" / ".huggingface-shared-blobs").touch()
    return snapshot


def _refused(direction: Direction, model: Path, message: str, whole: Path) -> None:
    before = tree(whole)
    stamps = {path: path.lstat().st_mtime_ns for path in whole.rglob("*")}
    for option in ((), ("--dry-run",)):
        code, _, err = run(direction.name, direction.patch, model, "--in-place", *option)
        assert code == OutputError.exit_code
        assert message in " ".join(err.split())
        assert "write a copy with -o" in err
    assert tree(whole) == before
    assert {path: path.lstat().st_mtime_ns for path in whole.rglob("*")} == stamps


@pytest.mark.parametrize("shared", [False, True])
def test_a_cached_model_is_refused(tmp_path: Path, direction: Direction, shared: bool) -> None:
    cache = tmp_path / "hub"
    snapshot = _snapshot(direction, cache, shared)
    _refused(direction, snapshot, "outside the model's folder", cache)
    (tmp_path / "mine").symlink_to(snapshot)
    _refused(direction, tmp_path / "mine", "outside the model's folder", cache)
    code, _, err = run(direction.name, direction.patch, snapshot, "-o", tmp_path / "out")
    assert code == 0, err
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    for name in (FIRST, SECOND):
        assert (tmp_path / "out" / name).read_bytes() == (direction.target / name).read_bytes()


@pytest.mark.parametrize("shared", [False, True])
def test_a_blob_of_a_cache_is_refused(tmp_path: Path, direction: Direction, shared: bool) -> None:
    """A model of one file, named by its blob in place of its snapshot."""
    whole = tmp_path / "whole"
    tensors = read_model(direction.source)
    one = Direction(direction.name, direction.patch, write_model(whole, tensors), whole)
    blob = (_snapshot(one, tmp_path / "hub", shared) / "model.safetensors").resolve()
    _refused(one, blob, "belongs to a hub's cache", tmp_path / "hub")


def test_a_cache_without_links_is_refused(tmp_path: Path, direction: Direction) -> None:
    """As on systems where the cache cannot make links: its snapshots hold the files."""
    snapshot = tmp_path / "hub" / "models--org--chat" / "snapshots" / "0f3a"
    shutil.copytree(direction.source, snapshot)
    _refused(direction, snapshot, "belongs to a hub's cache", tmp_path / "hub")


@pytest.mark.parametrize("marked", [False, True])
def test_the_store_of_a_cache_is_refused(
    tmp_path: Path, direction: Direction, marked: bool
) -> None:
    """The model's folder is in the store itself, under a marker or beside repositories."""
    blobs = tmp_path / "hub" / "blobs"
    shutil.copytree(direction.source, blobs / "4c")
    if marked:
        (blobs / ".huggingface-shared-blobs").touch()
    else:
        (tmp_path / "hub" / "models--org--chat").mkdir()
    _refused(direction, blobs / "4c", "belongs to a hub's cache", tmp_path / "hub")


@pytest.mark.parametrize("deep", [1, 2])
def test_a_link_out_of_the_folder_is_refused(
    tmp_path: Path, direction: Direction, deep: int
) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    (direction.source / FIRST).rename(place / "blob")
    (place / "link").symlink_to(place / "blob")
    (direction.source / FIRST).symlink_to(place / ("blob" if deep == 1 else "link"))
    refused(direction, OutputError, f"{FIRST} is a link to {place}/blob, outside")


def test_a_link_within_the_folder_is_followed_and_named(direction: Direction) -> None:
    blob = direction.source / "weights"
    (direction.source / FIRST).rename(blob)
    (direction.source / FIRST).symlink_to(blob.name)
    report = direction.run()
    assert (direction.source / FIRST).is_symlink()
    assert report.files == (blob, direction.source / SECOND)
    assert blob.read_bytes() == (direction.target / FIRST).read_bytes()


def test_the_folder_itself_may_be_a_link(tmp_path: Path, direction: Direction) -> None:
    (tmp_path / "chat").symlink_to(direction.source)
    direction.run(tmp_path / "chat")
    assert tree(direction.source) == tree(direction.target)


def test_a_hard_link_is_refused(tmp_path: Path, direction: Direction) -> None:
    os.link(direction.source / SECOND, tmp_path / "other-name")
    refused(direction, OutputError, f"{SECOND} has 2 names")


def test_a_file_that_hides_the_shards_is_refused(direction: Direction) -> None:
    shutil.copyfile(direction.source / FIRST, direction.source / "model.safetensors")
    message = rf"the model is model\.safetensors by .*index\.json, by which vLLM loads {FIRST} and"
    refused(direction, UnsupportedInputError, message)


def test_what_other_loaders_prefer_is_refused(direction: Direction) -> None:
    name = "consolidated.safetensors"
    shutil.copyfile(direction.source / FIRST, direction.source / name)
    refused(direction, UnsupportedInputError, f"{name}, which vLLM prefers to {FIRST} and")


def test_what_no_loader_takes_is_not_in_the_way(direction: Direction) -> None:
    shutil.copyfile(direction.source / FIRST, direction.source / "model-00001-of-00009.safetensors")
    (direction.source / "model.safetensors").symlink_to("nowhere")
    direction.run()
    assert (direction.source / SECOND).read_bytes() == (direction.target / SECOND).read_bytes()


def test_without_an_index_every_file_with_such_tensors_counts(
    tmp_path: Path, direction: Direction
) -> None:
    model = write_model(tmp_path / "one-file", read_model(direction.source))
    write_file(model / "mtp.safetensors", {"mtp": np.zeros(3, np.float32)})
    names = tree(model)
    write_file(model / "old.safetensors", {CHANGED[0]: np.zeros(3, np.float32)})
    refused(direction, UnsupportedInputError, r"old\.safetensors, which holds the same tens", model)
    (model / "old.safetensors").unlink()
    assert tree(model) == names
    direction.run(model)
    assert read_model(model / "model.safetensors") == read_model(direction.target)
