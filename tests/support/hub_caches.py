"""Caches of the Hugging Face hub, made by hand in both of their layouts."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"


def repository(cache: Path, name: str) -> Path:
    """The folder of a model in a cache."""
    return cache / f"models--{name.replace('/', '--')}"


def write_ref(cache: Path, name: str, revision: str, commit: str) -> Path:
    """Let a branch or a tag name a commit."""
    ref = repository(cache, name) / "refs" / revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    ref.write_text(commit)
    return ref


def write_cached(
    cache: Path,
    name: str,
    source: Path,
    commit: str = COMMIT,
    revision: str | None = "main",
    shared: bool = False,
    left_out: Iterable[str] = (),
    listed: bool = False,
) -> Path:
    """Put a model's files into a cache, as links to blobs, and return the snapshot's folder.

    Args:
        cache: the cache's folder.
        name: the model's name on the hub.
        source: its files.
        commit: of the snapshot.
        revision: what names the commit; None for nothing.
        shared: whether the blobs are links into a store that all models share.
        left_out: files that the download did not get to.
        listed: whether the hub's list of all files is there.
    """
    home = repository(cache, name)
    snapshot = home / "snapshots" / commit
    snapshot.mkdir(parents=True)
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    for path in files:
        place = snapshot / path.relative_to(source)
        if place.name not in left_out:
            place.parent.mkdir(parents=True, exist_ok=True)
            blob = _write_blob(cache, home, path, shared)
            place.symlink_to(os.path.relpath(blob, place.parent))
    if revision:
        write_ref(cache, name, revision, commit)
    if listed:
        names = [path.relative_to(source).as_posix() for path in files]
        trees = home / "trees"
        trees.mkdir(exist_ok=True)
        content = {
            "format_version": 1,
            "files": {one: {"size": 1, "blob_id": "0"} for one in names},
        }
        (trees / f"{commit}.json").write_text(json.dumps(content))
    return snapshot


def _write_blob(cache: Path, home: Path, path: Path, shared: bool) -> Path:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    blob = home / "blobs" / digest
    blob.parent.mkdir(exist_ok=True)
    if blob.exists():
        return blob
    if not shared:
        shutil.copyfile(path, blob)
        return blob
    store = cache / "blobs"
    real = store / digest[:2] / digest
    real.parent.mkdir(parents=True, exist_ok=True)
    (store / ".huggingface-shared-blobs").write_text("1\n")
    real.with_name(f"{digest}.refs").write_text(f"{blob.relative_to(cache)}\n")
    shutil.copyfile(path, real)
    blob.symlink_to(os.path.relpath(real, blob.parent))
    return blob


def contents(cache: Path) -> dict[str, bytes | str]:
    """Every file and link of a cache."""
    return {
        str(path): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_symlink() or path.is_file()
    }
