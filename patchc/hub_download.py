"""Fetches a model into the hub's cache, with huggingface_hub."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Any

from patchc.errors import (
    CheckpointError,
    MissingCheckpointError,
    PatchcError,
    UsageError,
    import_errors,
)
from patchc.hub_cache import HubId, Snapshot, cache_folder, find_snapshot, repository_of
from patchc.hub_gaps import UNUSED_SUFFIXES
from patchc.notes import note
from patchc.progress import Progress, ProgressEvent
from patchc.system_errors import storage_error

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)
_TRUE = ("1", "ON", "YES", "TRUE")
_BYTES_ON_DISK = "huggingface_hub.snapshot_download"
"""What huggingface_hub calls the bar that counts these."""

_SHOWN = 300


class _StoppedError(Exception):
    """Nobody waits for the download any more."""


class _Listener:
    """The caller, as the threads of a download see it.

    Attributes:
        gone: whether it waits no longer.
        error: what its callback raised.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.lock = Lock()
        self.gone = False
        self.error: BaseException | None = None

    def hear(self, done: int, total: int) -> None:
        if self.gone:
            raise _StoppedError
        try:
            self._progress(ProgressEvent("download", done, total, "bytes"))
        except BaseException as error:
            self.error = error
            raise


def download(hub_id: HubId, progress: Progress) -> Snapshot:
    """Fetch all files of a model but weights in formats that patchc does not read.

    Files that the cache has are not fetched again. A note tells when it begins. An interrupt ends
    the call at once, and the download as soon as more bytes arrive.

    Args:
        hub_id: the model.
        progress: called with the bytes done, from several threads, one at a time.

    Raises:
        UsageError: the environment forbids it.
        MissingExtraError: huggingface_hub is not installed.
        MissingCheckpointError: the hub has no such model or revision, or does not give it to this
            user.
        CheckpointError: the hub cannot be reached, or answers with an error.
        StorageError: the cache cannot be written.
    """
    _check_online(hub_id)
    listener = _Listener(progress)
    with import_errors("--download", "hub"):
        from huggingface_hub import snapshot_download

        bar = _bar_for(listener)
    note(f"{hub_id}: being fetched into the hub's cache, {repository_of(hub_id)}")

    def fetch() -> object:
        return snapshot_download(
            hub_id.name,
            revision=hub_id.revision,
            cache_dir=cache_folder(),
            endpoint=os.environ.get("HF_ENDPOINT") or None,
            ignore_patterns=[f"*{suffix}" for suffix in UNUSED_SUFFIXES],
            library_name="patchc",
            tqdm_class=bar,
        )

    try:
        _run_beside(fetch)
    except Exception as error:  # of the hub, of its Xet, of the network: no class has them all
        raise (listener.error or _told(hub_id, error)) from error
    finally:
        listener.gone = True
    found = find_snapshot(hub_id)
    if found is None:
        raise CheckpointError(f"{repository_of(hub_id)}: not there after a download; run it again")
    return found


def _check_online(hub_id: HubId) -> None:
    name = next((name for name in _OFFLINE if os.environ.get(name)), None)
    if name and os.environ[name].upper() in _TRUE:
        raise UsageError(
            f"{hub_id.name} is not whole in the hub's cache, and {name} forbids downloads; "
            f"unset {name}, or fetch the model elsewhere"
        )


def _bar_for(listener: _Listener) -> type:
    """A bar that is not drawn: the listener hears of the bytes on the disk."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **named: Any) -> None:
            self._counts = named.get("name") == _BYTES_ON_DISK
            super().__init__(*args, **named | {"disable": True})

        def update(self, n: float | None = 1) -> None:
            if self._counts:
                with listener.lock:
                    self.n += int(n or 0)
                    listener.hear(self.n, self.total or 0)

    return Bar


def _run_beside(call: Callable[[], object]) -> None:
    """Call it in a thread of its own, and wait.

    huggingface_hub meets an interrupt only when the files are whole that are being fetched.
    """
    outcome = Future[object]()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # raised again where it is waited for
            outcome.set_exception(error)

    Thread(target=run, daemon=True).start()
    outcome.result()


def _told(hub_id: HubId, error: Exception) -> PatchcError:
    """The error to raise for one of huggingface_hub, of the network or of the system."""
    from huggingface_hub import errors

    named = str(hub_id)
    if isinstance(error, errors.GatedRepoError):
        message = (
            f"{named}: the hub gives this model only to those who accepted its terms; accept them "
            "on its page, then log in with `hf auth login`"
        )
        return MissingCheckpointError(message, named)
    refused = isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403)
    if refused or isinstance(error, errors.RepositoryNotFoundError):
        message = (
            f"{named}: the hub has no such model, or does not show it to you; check the name, and "
            "log in with `hf auth login` where the model is private"
        )
        return MissingCheckpointError(message, named)
    if isinstance(error, errors.RevisionNotFoundError):
        return MissingCheckpointError(
            f"{named}: the hub has this model, and not this revision; check it on the model's page",
            named,
        )
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        return storage_error(error, cache_folder(), "write")
    why = " ".join(str(error.__cause__ or error).split())[:_SHOWN] or type(error).__name__
    return CheckpointError(
        f"{named}: cannot be fetched from the hub: {why}; check the network and HF_ENDPOINT, then "
        "run again: files that are whole are kept"
    )
