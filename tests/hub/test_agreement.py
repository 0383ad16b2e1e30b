"""patchc and huggingface_hub find the same folder in a cache, or both find none."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path

import huggingface_hub
import pytest
from hub_caches import COMMIT, OTHER, repository, write_cached, write_ref
from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from tiny_checkpoints import normal, write_model

from patchc.errors import CheckpointError
from patchc.hub_cache import cache_folder
from patchc.hub_models import local_model

VARIABLES = (
    "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
)  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a working folder without a cache."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PLACE", str(tmp_path / "place"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tensors = {f"layers.{n}.weight": normal((4, 8), "BF16", n) for n in range(2)}
    side_files = {"config.json": "{}", "tokens/vocab.txt": "a"}
    return write_model(tmp_path / "source", tensors, shards=2, side_files=side_files)


def found_by_the_hub(text: str) -> Path | None:
    """What snapshot_download finds, with the variables as they are now."""
    cache = runpy.run_path(constants.__file__)["HF_HUB_CACHE"]
    name, _, revision = text.partition("@")
    try:
        found = huggingface_hub.snapshot_download(
            name, revision=revision or None, cache_dir=cache, local_files_only=True
        )
    except (HFValidationError, LocalEntryNotFoundError):
        return None
    return Path(found)


def found_by_patchc(text: str) -> Path | None:
    try:
        found = local_model(text)
    except CheckpointError:
        return None
    return found if isinstance(found, Path) else None


ENVIRONMENTS: dict[str, Mapping[str, str]] = {
    "none": {},
    "hub cache": {"HF_HUB_CACHE": "{}/a"},
    "hub cache, from the home": {"HF_HUB_CACHE": "~/a"},
    "hub cache, from a variable": {"HF_HUB_CACHE": "$PLACE/a"},
    "hub cache, from a variable with braces": {"HF_HUB_CACHE": "${PLACE}/a"},
    "hub cache, from an unknown variable": {"HF_HUB_CACHE": "$NOWHERE/a"},
    "hub cache, relative": {"HF_HUB_CACHE": "a/../b"},
    "hub cache, empty": {"HF_HUB_CACHE": ""},
    "older name": {"HUGGINGFACE_HUB_CACHE": "{}/a"},
    "older name, from a variable": {"HUGGINGFACE_HUB_CACHE": "$PLACE/a"},
    "both names": {"HUGGINGFACE_HUB_CACHE": "{}/a", "HF_HUB_CACHE": "{}/b"},
    "home of the hub": {"HF_HOME": "{}/a"},
    "home of the hub, from the home": {"HF_HOME": "~/a"},
    "home of the hub, from a variable": {"HF_HOME": "$PLACE/a"},
    "home of the hub, empty": {"HF_HOME": ""},
    "home of the hub and a cache": {"HF_HOME": "{}/a", "HF_HUB_CACHE": "{}/b"},
    "home of the hub and the older name": {"HF_HOME": "{}/a", "HUGGINGFACE_HUB_CACHE": "{}/b"},
    "user's caches, empty": {"XDG_CACHE_HOME": ""},
    "user's caches": {"XDG_CACHE_HOME": "{}/a"},
    "user's caches, from a variable": {"XDG_CACHE_HOME": "$PLACE/a"},
    "user's caches and the home of the hub": {"XDG_CACHE_HOME": "{}/a", "HF_HOME": "{}/b"},
    "offline": {"HF_HUB_OFFLINE": "1", "HF_HOME": "{}/a"},
}


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_the_same_variables_tell_where_the_cache_is(
    place: Path, source: Path, monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace("{}", str(place)))
    assert cache_folder().is_relative_to(place)
    write_cached(cache_folder(), "org/chat", source)
    found = found_by_the_hub("org/chat")
    assert found is not None
    assert found == found_by_patchc("org/chat")
    assert found_by_the_hub("org/other") is found_by_patchc("org/other") is None


REVISIONS = {
    "none given": "", "a tag": "@v1.0", "a branch with slashes": "@refs/pr/1",
    "a commit": f"@{OTHER}",
    "a commit that nothing names": f"@{COMMIT[::-1]}", "main, by its name": "@main",
    "an unknown one": "@v2", "the start of a commit": f"@{COMMIT[:12]}",
    "an unknown commit": f"@{'9' * 40}", "a commit in capitals": f"@{OTHER.upper()}",
    "of a snapshot that is gone": "@gone", "of a commit and a line end": "@line",
    "below another": "@main/x", "a dot in front": "@.hidden", "unusual letters": "@é+1,b=c",
}  # fmt: skip
NAMES = [
    "org/chat", "chat", "org/Chat_1.2-it", "or.g/chat", "org/chatt", "org/chat-", "-org/chat",
    "org/ch--at", "org/ch..at", "org/chat.git", "org/chát", "org/chat/more", "org/", "/chat",
    "org/cha t", "a" * 96, "org/" + "a" * 97, "org/_chat",
]  # fmt: skip


@pytest.mark.parametrize("shared", [False, True], ids=["blobs are files", "blobs are shared"])
@pytest.mark.parametrize("revision", REVISIONS.values(), ids=REVISIONS)
def test_a_revision_leads_to_the_same_snapshot(
    place: Path, source: Path, revision: str, shared: bool
) -> None:
    cache = place / "home/.cache/huggingface/hub"
    write_cached(cache, "org/chat", source, shared=shared)
    write_cached(cache, "org/chat", source, OTHER, "v1.0", shared)
    write_cached(cache, "org/chat", source, COMMIT[::-1], None, shared)
    for name, commit in {
        "refs/pr/1": OTHER, "gone": "9" * 40, "line": f"{OTHER}\n", ".hidden": OTHER,
        "é+1,b=c": COMMIT,
    }.items():  # fmt: skip
        write_ref(cache, "org/chat", name, commit)
    found = found_by_the_hub(f"org/chat{revision}")
    assert found == found_by_patchc(f"org/chat{revision}")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_leads_to_the_same_model(place: Path, source: Path, name: str) -> None:
    cache = place / "home/.cache/huggingface/hub"
    for cached in NAMES:
        if len(cached) < 200 and cached != "/chat":
            write_cached(cache, cached.rstrip("/"), source)
    if name == "org/chatt":
        repository(cache, name).rename(cache / "elsewhere")
    assert found_by_the_hub(name) == found_by_patchc(name)


def test_what_the_hub_lists_and_the_cache_lacks(place: Path, source: Path) -> None:
    cache = place / "home/.cache/huggingface/hub"
    shard = "model-00002-of-00002.safetensors"
    write_cached(cache, "org/part", source, listed=True, left_out=[shard])
    assert found_by_the_hub("org/part") is found_by_patchc("org/part") is None
    write_cached(cache, "org/whole", source, listed=True)
    assert found_by_the_hub("org/whole") == found_by_patchc("org/whole") is not None
