"""What is taken where a model's name on a hub is given, and what is said about it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hub_caches import COMMIT, OTHER, repository, write_cached, write_ref
from ordinary_user import ordinary_user
from tiny_checkpoints import normal, write_model

import patchc
from patchc.errors import (
    CheckpointError,
    MissingCheckpointError,
    MissingInputError,
)
from patchc.hub_cache import model_name
from patchc.hub_models import local_model


def test_what_was_taken_is_said(
    cache: Path, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "patchc")
    folder = write_cached(cache, "org/chat", source)
    assert local_model("org/chat") == folder
    expected = f"org/chat: taken from the hub's cache, revision main, commit {COMMIT}: {folder}"
    assert caplog.messages == [expected]
    assert model_name(folder) == "org/chat@0123456"


def test_a_local_path_wins(cache: Path, source: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "patchc")
    write_cached(cache, "org/chat", source)
    write_cached(cache, "chat", source)
    said = "taken as the local path; the hub's cache has a model of this name, too"
    for path in ("org/chat@v1", "org/chat", "chat"):
        Path(path).mkdir(parents=True)
        assert local_model(path) == path
    assert caplog.messages == [f"{path}: {said}" for path in ("org/chat@v1", "org/chat", "chat")]


@pytest.mark.parametrize(
    "path", ["./chat", "/chat", "~chat", "../chat", "a/b/c", "org/chat/", "chat\0", ""]
)
@pytest.mark.usefixtures("cache")
def test_what_is_never_a_name(path: str) -> None:
    assert local_model(path) == path


def test_a_name_alone_is_one_where_the_cache_has_it(cache: Path, source: Path) -> None:
    assert local_model("chat") == "chat"
    folder = write_cached(cache, "chat", source)
    assert local_model("chat") == folder
    with pytest.raises(MissingCheckpointError, match="not its revision 'v1'"):
        local_model("chat@v1")


def test_what_is_missing_and_what_fetches_it(cache: Path, source: Path) -> None:
    with pytest.raises(MissingCheckpointError) as none:
        local_model("org/chat")
    assert f"the hub's cache ({cache}) has no model of this name" in str(none.value)
    assert "`hf download org/chat`, or give --download" in str(none.value)
    write_cached(cache, "org/chat", source)
    write_ref(cache, "org/chat", "refs/pr/1", COMMIT)
    with pytest.raises(MissingCheckpointError) as revision:
        local_model("org/chat@it's")
    assert 'not its revision "it\'s" (there are: main, refs/pr/1)' in str(revision.value)
    assert """`hf download org/chat --revision 'it'"'"'s'`""" in str(revision.value)
    assert none.value.exit_code == 3
    assert isinstance(none.value, FileNotFoundError)


def test_revisions_that_leave_the_cache_are_none(cache: Path, source: Path) -> None:
    """They are local paths then, with nothing at them."""
    write_cached(cache, "org/chat", source)
    for revision in (
        "../main",
        "/etc/passwd",
        "a//b",
        ".",
        "a b",
        "main~1",
        "\n",
        "a\0",
        "x" * 300,
    ):
        assert local_model(f"org/chat@{revision}") == f"org/chat@{revision}"


HOSTILE = {
    "another folder": "../..",
    "the root": "/etc",
    "another model": f"../../models--org--other/snapshots/{OTHER}",
    "nothing": "",
    "a line end": f"{COMMIT}\n",
    "hidden": ".git",
    "no text": "\udcff\udcfe",
    "much": "a" * (1 << 22),
    "what a screen acts on": "\x1b[2Jabc",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_ref_that_names_no_commit(cache: Path, source: Path, content: str) -> None:
    write_cached(cache, "org/other", source, OTHER)
    write_cached(cache, "org/chat", source)
    ref = repository(cache, "org/chat") / "refs/main"
    ref.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError) as caught:
        local_model("org/chat")
    assert str(ref) in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_ref_that_is_a_folder_or_a_pipe(cache: Path, source: Path) -> None:
    write_cached(cache, "org/chat", source, revision=None)
    ref = repository(cache, "org/chat") / "refs/main"
    ref.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="it is a folder, and a file is needed"):
        local_model("org/chat")
    ref.rmdir()
    os.mkfifo(ref)
    with pytest.raises(CheckpointError, match="it is a pipe, and a file is needed"):
        local_model("org/chat")


SHARDS = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]


def test_a_model_without_a_shard_is_refused(cache: Path, source: Path) -> None:
    folder = write_cached(cache, "org/chat", source, left_out=SHARDS[1:])
    with pytest.raises(MissingCheckpointError) as caught:
        patchc.status("org/chat@main", [])
    assert f"{folder} lacks {SHARDS[1]}; complete it with `hf download org/chat" in str(
        caught.value
    )


def test_a_link_that_leads_nowhere_is_a_shard_that_is_not_there(cache: Path, source: Path) -> None:
    folder = write_cached(cache, "org/chat", source)
    (folder / SHARDS[0]).resolve().unlink()
    with pytest.raises(MissingCheckpointError, match=SHARDS[0]):
        local_model("org/chat")


def test_a_link_that_leads_nowhere_is_a_single_file_that_is_not_there(
    cache: Path, source: Path
) -> None:
    write_model(source / "one", {"a": normal((4, 8), "BF16", 1)})
    folder = write_cached(cache, "org/chat", source / "one")
    (folder / "model.safetensors").resolve().unlink()
    with pytest.raises(MissingCheckpointError, match=r"lacks model\.safetensors; .*--download"):
        local_model("org/chat")


@pytest.mark.parametrize("more", [["config.json"], []], ids=["nothing at all", "side files"])
def test_a_snapshot_without_weights(cache: Path, source: Path, more: list[str]) -> None:
    """Somebody loaded the tokenizer alone, or a download was cut off."""
    index = "model.safetensors.index.json"
    write_cached(cache, "org/chat", source, left_out=[*SHARDS, index, *more])
    with pytest.raises(MissingCheckpointError, match=r"lacks its weights .* or give --download"):
        local_model("org/chat")


def test_a_model_without_safetensors_is_what_the_hub_has(cache: Path, source: Path) -> None:
    (source / "pytorch_model.bin").write_text("weights in another format")
    left_out = [*SHARDS, "model.safetensors.index.json"]
    folder = write_cached(cache, "org/chat", source, left_out=left_out)
    assert local_model("org/chat") == folder


def test_a_snapshot_that_was_removed_is_no_revision_that_is_there(
    cache: Path, source: Path
) -> None:
    shutil.rmtree(write_cached(cache, "org/chat", source))
    with pytest.raises(MissingCheckpointError, match=r"'main' \(there are: none\)"):
        local_model("org/chat")
    write_cached(cache, "org/chat", source, OTHER, "v2")
    with pytest.raises(MissingCheckpointError, match=r"'main' \(there are: v2\)"):
        local_model("org/chat")


def test_a_cache_and_folders_where_one_may_not_look(cache: Path, source: Path) -> None:
    """Such as the cache of another user. It is in no local path's way."""
    write_cached(cache, "org/chat", source)
    cache.chmod(0o700)
    for path in ("models/base", "secret/base"):
        Path(path).mkdir(parents=True)
    Path("secret").chmod(0o000 if os.geteuid() else 0o700)
    with ordinary_user() if os.geteuid() == 0 else closed(cache):
        assert local_model("models/base") == "models/base"
        assert local_model("secret/base") == "secret/base"
        assert local_model("none") == "none"
        with pytest.raises(CheckpointError, match=r"refs/main: cannot .* Permission denied"):
            local_model("org/chat")
    Path("secret").chmod(0o700)


@contextmanager
def closed(folder: Path) -> Iterator[None]:
    folder.chmod(0o000)
    yield
    folder.chmod(0o700)


def test_other_files_that_the_cache_lacks_are_named(
    cache: Path, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "patchc")
    (source / "tokenizer.json").write_text("{}")
    (source / "pytorch_model.bin").write_text("not fetched either")
    left_out = ["tokenizer.json", "pytorch_model.bin"]
    folder = write_cached(cache, "org/chat", source, listed=True, left_out=left_out)
    assert local_model("org/chat") == folder
    assert caplog.messages[1:] == [
        "org/chat: the hub's cache lacks tokenizer.json, which the hub has; `hf download org/chat` "
        "fetches it"
    ]


@pytest.mark.parametrize(
    "content",
    [
        "{", "[]", '{"files": 3}', json.dumps({"files": {"../../x": {}, "": {}, "/etc/none": {}}}),
        '{"files":' + "[" * 10_000, '{"files": {' + '"a": {},' * 3,
        json.dumps({"files": {f"{n}.json": {} for n in range(200_000)}}),
    ],
    ids=["cut", "a list", "a number", "paths", "deep", "cut later", "many"],
)  # fmt: skip
def test_a_list_of_files_that_is_none_tells_nothing(
    cache: Path, source: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "patchc")
    folder = write_cached(cache, "org/chat", source)
    trees = repository(cache, "org/chat") / "trees"
    trees.mkdir()
    (trees / f"{COMMIT}.json").write_text(content)
    assert local_model("org/chat") == folder
    assert len(caplog.messages) == 1


@pytest.mark.usefixtures("cache")
def test_a_judge_that_the_cache_lacks() -> None:
    from patchc.evaluation.classifier import open_classifier

    with pytest.raises(MissingInputError, match="judge hf:org/judge=bad: org/judge: no such file"):
        open_classifier("org/judge=bad", "cpu")


def test_nothing_of_the_hub_is_imported(cache: Path, source: Path, tmp_path: Path) -> None:
    write_cached(cache, "org/chat", source)
    write_cached(cache, "org/next", source, OTHER)
    code = f"""
import sys
import patchc
patchc.diff("org/chat", "org/next", out={str(tmp_path / "none.patchc")!r})
print(sorted({{"huggingface_hub", "httpx2", "httpx", "tqdm"}} & set(sys.modules)))
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
