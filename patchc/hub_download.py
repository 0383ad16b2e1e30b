"""Fetches a model into the hub's cache, with huggingface_hub."""

from __future__ import annotations

import errno
import os
from threading import Lock
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
from patchc.progress import Progress, ProgressEvent
from patchc.system_errors import storage_error

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)
_TRUE = ("1", "ON", "YES", "TRUE")
_BYTES_ON_DISK = "huggingface_hub.snapshot_download"
"""What huggingface_hub calls the bar that counts these."""

_SHOWN = 300


def download(hub_id: HubId, progress: Progress) -> Snapshot:
    """Fetch all files of a model but weights in formats that patchc does not read.

    Files that the cache has are not fetched again, and what was cut off is continued.

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
    for name in _OFFLINE:
        if os.environ.get(name, "").upper() in _TRUE:
            raise UsageError(
                f"{hub_id.name} is not whole in the hub's cache, and {name} forbids downloads; "
                f"unset {name}, or fetch the model elsewhere"
            )
    with import_errors("--download", "hub"):
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils import tqdm

    class Told(tqdm):  # type: ignore[misc]
        """A bar that is not drawn: the caller hears of the bytes on the disk."""

        def __init__(self, *args: Any, **named: Any) -> None:
            self._counts = named.get("name") == _BYTES_ON_DISK
            super().__init__(*args, **named | {"disable": True})

        def update(self, n: float | None = 1) -> None:
            if self._counts:
                with lock:
                    self.n += int(n or 0)
                    progress(ProgressEvent("download", self.n, self.total or 0, "bytes"))

    lock = Lock()
    try:
        snapshot_download(
            hub_id.name,
            revision=hub_id.revision,
            cache_dir=cache_folder(),
            endpoint=os.environ.get("HF_ENDPOINT") or None,
            ignore_patterns=[f"*{suffix}" for suffix in UNUSED_SUFFIXES],
            library_name="patchc",
            tqdm_class=Told,
        )
    except Exception as error:  # of the hub, of its Xet, of the network: no class has them all
        raise _told(hub_id, error) from error
    found = find_snapshot(hub_id)
    if found is None:
        raise CheckpointError(f"{repository_of(hub_id)}: not there after a download; run it again")
    return found


def _told(hub_id: HubId, error: Exception) -> PatchcError:
    """The error to raise for one of huggingface_hub, of the network or of the system."""
    from huggingface_hub import errors

    named = f"{hub_id.name}@{hub_id.revision}" if hub_id.revision else hub_id.name
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
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        return CheckpointError(f"{named}: the hub answers with status {status}; try again later")
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        return storage_error(error, cache_folder(), "write")
    why = " ".join(str(error.__cause__ or error).split())[:_SHOWN] or type(error).__name__
    return CheckpointError(
        f"{named}: cannot be fetched from the hub: {why}; check the network and HF_ENDPOINT, then "
        "run again: what was fetched is kept"
    )
