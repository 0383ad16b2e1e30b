"""``--download`` and ``allow_downloads``, against a hub on this machine."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event, main_thread
from threading import enumerate as enumerate_threads

import pytest
from command_line import run
from fake_hub import FakeHub, serving
from hub_caches import COMMIT, OTHER, repository, write_cached
from tiny_checkpoints import normal, write_model

import patchc
from patchc.errors import CheckpointError, MissingCheckpointError, StorageError, UsageError

SIDE_FILES = {"config.json": "{}", "tokenizer.model": "tokens", "chat_template.jinja": "{{ a }}"}
UNUSED = ["pytorch_model.bin", "gguf/model.gguf", "onnx/model.onnx"]
SHARD = "model-00002-of-00002.safetensors"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tensors = {f"layers.{n}.weight": normal((4, 8), "BF16", n) for n in range(2)}
    return write_model(tmp_path / "source", tensors, shards=2, side_files=SIDE_FILES)


@pytest.fixture
def hub(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with one model, an empty cache, and a patch for the model."""
    changed = write_model(
        tmp_path / "changed",
        {f"layers.{n}.weight": normal((4, 8), "BF16", n + 1) for n in range(2)},
        shards=2,
        side_files=SIDE_FILES,
    )
    patchc.diff(source, changed, out=tmp_path / "fix.patchc")
    for name in UNUSED:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("weights in another format")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    revisions = {"main": COMMIT, "refs/pr/1": OTHER, COMMIT: COMMIT}
    with serving(FakeHub("org/chat", source, revisions)) as one:
        monkeypatch.setenv("HF_ENDPOINT", one.address)
        yield one


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_model_is_fetched_once(hub: FakeHub, tmp_path: Path) -> None:
    call = ["apply", "fix.patchc", "org/chat", "-o", "out"]
    code, _, errors = run(*call)
    assert code == 3
    assert "--download" in errors
    assert not hub.sent
    code, _, errors = run(*call, "--download")
    assert code == 0, errors
    assert errors.splitlines()[0].startswith("patchc: note: org/chat: being fetched into the hub's")
    assert all(line.startswith("patchc: ") for line in errors.splitlines())
    wanted = files_of(hub.source) - {*UNUSED}
    assert {*hub.sent} == wanted == files_of(tmp_path / "out")
    hub.sent.clear()
    code, _, errors = run("verify", "fix.patchc", "org/chat", "--download")
    assert code == 0
    assert "being fetched" not in errors
    assert not hub.sent


def test_in_python_a_block_allows_it(hub: FakeHub) -> None:
    with pytest.raises(MissingCheckpointError):
        patchc.verify("fix.patchc", "org/chat@refs/pr/1")
    events: list[patchc.ProgressEvent] = []
    with patchc.allow_downloads():
        report = patchc.verify("fix.patchc", "org/chat@refs/pr/1", progress=events.append)
    assert report.state == "base"
    assert hub.sent
    heard = [one for one in events if one.stage == "download"]
    assert [one.done for one in heard] == sorted({one.done for one in heard})
    wanted = files_of(hub.source) - {*UNUSED}
    nbytes = sum((hub.source / name).stat().st_size for name in wanted)
    assert heard[-1].done == heard[-1].total == nbytes
    assert heard[-1].unit == "bytes"
    with pytest.raises(MissingCheckpointError):
        patchc.verify("fix.patchc", "org/other")


def test_what_a_cut_off_download_left_out_is_fetched(hub: FakeHub, tmp_path: Path) -> None:
    write_cached(tmp_path / "cache", "org/chat", hub.source, left_out=[SHARD])
    code, _, errors = run("verify", "fix.patchc", "org/chat", "--download")
    assert code == 0, errors
    assert hub.sent == [SHARD]


def test_an_interrupt_does_not_wait_for_files(hub: FakeHub) -> None:
    released, before = Event(), set(enumerate_threads())

    def interrupt(name: str) -> None:
        if name == SHARD:
            signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)
            released.wait(20)

    hub.before_sending = interrupt
    with pytest.raises(KeyboardInterrupt), patchc.allow_downloads():
        patchc.verify("fix.patchc", "org/chat")
    assert not released.is_set()
    assert SHARD not in hub.sent
    released.set()
    for thread in set(enumerate_threads()) - before:
        if thread.name.startswith("ThreadPoolExecutor"):  # tqdm has one that goes on
            thread.join()


@pytest.mark.usefixtures("hub")
def test_an_error_of_the_callback_ends_the_download() -> None:
    class OwnError(Exception):
        pass

    def stop(event: patchc.ProgressEvent) -> None:
        if event.stage == "download":
            raise OwnError

    with pytest.raises(OwnError), patchc.allow_downloads():
        patchc.verify("fix.patchc", "org/chat", progress=stop)


def test_a_hub_that_lacks_a_shard(hub: FakeHub) -> None:
    (hub.source / SHARD).unlink()
    code, _, errors = run("verify", "fix.patchc", "org/chat", "--download")
    assert code == 3
    assert f"lacks {SHARD}; a download brought no more" in errors


@pytest.mark.parametrize(
    ("error", "name", "kind", "told"),
    [
        (None, "org/none", MissingCheckpointError, "the hub has no such model, or does not show"),
        (None, "org/chat@v9", MissingCheckpointError, "the hub has this model, and not this rev"),
        ((401, ""), "org/chat", MissingCheckpointError, "the hub has no such model, or does not"),
        ((403, "GatedRepo"), "org/chat", MissingCheckpointError, "hf auth login"),
        ((500, ""), "org/chat", CheckpointError, "Internal Server Error"),
    ],
)
def test_what_a_hub_refuses(
    hub: FakeHub, error: tuple[int, str] | None, name: str, kind: type[Exception], told: str
) -> None:
    hub.error = error
    with pytest.raises(kind) as caught, patchc.allow_downloads():
        patchc.verify("fix.patchc", name)
    assert str(caught.value).startswith(f"{name}: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    code, _, errors = run("verify", "fix.patchc", name, "--download")
    assert code == 3
    assert f"patchc: error: {name}: " in errors


def test_a_hub_that_cannot_be_reached(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, _, errors = run("verify", "fix.patchc", "org/chat", "--download")
    assert code == 3
    assert "cannot be fetched from the hub: " in errors
    assert "Traceback" not in errors
    assert not hub.sent


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
@pytest.mark.parametrize("value", ["1", "on", "Yes", "TRUE"])
def test_the_environment_forbids_downloads(
    hub: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    value: str,
) -> None:
    caplog.set_level(logging.INFO, "patchc")
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"{name} forbids downloads"), patchc.allow_downloads():
        patchc.verify("fix.patchc", "org/chat")
    assert not hub.sent
    assert not caplog.messages


@pytest.mark.usefixtures("hub")
def test_the_hubs_own_variable_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    with patchc.allow_downloads():
        assert patchc.verify("fix.patchc", "org/chat").state == "base"


def test_without_the_extra(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, _, errors = run("verify", "fix.patchc", "org/chat", "--download")
    assert code == 16
    assert "--download needs huggingface_hub; install it with `" in errors
    assert "[hub]" in errors
    assert not hub.sent


def test_a_cache_that_cannot_be_written(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises((StorageError, CheckpointError)) as caught, patchc.allow_downloads():
        patchc.verify("fix.patchc", "org/chat")
    assert str(tmp_path / "cache") in str(caught.value)
    assert not hub.sent or repository(tmp_path / "cache", "org/chat")
