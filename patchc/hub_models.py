"""Takes a model's name on a hub wherever a model is taken, and finds its files in the cache.

A local path of the same spelling wins. Nothing is downloaded, except in the block of
:func:`allow_downloads`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from patchc.errors import MissingCheckpointError, OutputError
from patchc.hub_cache import (
    MAIN,
    HubId,
    Snapshot,
    cache_folder,
    commits_meant,
    find_snapshot,
    id_meant,
    known_revisions,
    parse_id,
    repository_of,
)
from patchc.hub_gaps import Gaps, find_gaps
from patchc.notes import note
from patchc.paths import PathLike, check_named
from patchc.progress import Progress, ignore_progress
from patchc.regular_file import is_possible

_P = ParamSpec("_P")
_R = TypeVar("_R")
_downloads = ContextVar("_downloads", default=False)


@contextmanager
def allow_downloads(allowed: bool = True) -> Iterator[None]:
    """Let calls in this block fetch models that are named by hub ids and that the cache lacks.

    Weights in other formats than safetensors are left out. What the cache has is taken as it is,
    without asking the hub.

    Args:
        allowed: whether they may.

    Raises:
        MissingExtraError: in such a call, ``patchc[hub]`` is not installed.
        UsageError: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids it.
        MissingCheckpointError: the hub has no such model or revision, or not for this user.
        CheckpointError: the hub cannot be reached.
        StorageError: the cache cannot be written.
    """
    before = _downloads.set(allowed)
    try:
        yield
    finally:
        _downloads.reset(before)


def takes_models(*names: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Make a public function take names on a hub for these parameters: one model each, or several.

    The function itself sees folders only. An empty text is refused, and an ``out`` that would be
    taken for the model from then on.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        code: Any = vars(function).get("__wrapped__", function)
        order = code.__code__.co_varnames[: code.__code__.co_argcount]
        places = [order.index(name) for name in names if name in order]

        @wraps(function)
        def taking(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            given, named = list[Any](args), dict[str, Any](kwargs)
            all_named = {**dict(zip(order, given, strict=False)), **named}
            progress, out = all_named.get("progress", ignore_progress), all_named.get("out")
            for place in places:
                if place < len(given):
                    given[place] = _each_local(given[place], order[place], progress, out)
            for name in names:
                if name in named:
                    named[name] = _each_local(named[name], name, progress, out)
            return function(*given, **named)

        vars(taking)["models"] = names
        return taking

    return decorate


def local_model(
    path: PathLike, progress: Progress = ignore_progress, out: PathLike | None = None
) -> PathLike:
    """The folder of a model that is named as on a hub; any other path as it is.

    Args:
        path: what was given.
        progress: called with the bytes of a download.
        out: what will be written.

    Raises:
        OutputError: ``out`` is spelled as the model's name, or lies below it: a local path wins.
        MissingCheckpointError: the cache lacks the model, the revision or some of its weights.
        CheckpointError: the cache is damaged.
        and what :func:`allow_downloads` says.
    """
    text = os.fspath(path)
    hub_id = parse_id(text)
    if not is_possible(text):
        return path
    if hub_id is None:
        if (meant := id_meant(text)) and not _is_local(text):
            message = f"{text}: no such file or folder; the model's hub id is written {meant}"
            raise MissingCheckpointError(message, text)
        return path
    repository = repository_of(hub_id)
    cached = os.path.isdir(repository)  # noqa: PTH112 (Path.is_dir raises where it may not look)
    if _is_local(text):
        if cached:
            note(f"{text}: taken as the local path; the hub's cache has a model of this name, too")
        return path
    outer = hub_id.name.rpartition("/")[0]
    is_path = os.path.lexists(outer) and not os.path.isdir(outer)  # noqa: PTH112 (as above)
    if is_path or not (cached or outer):
        return path
    if out is not None:
        _refuse_shadow(hub_id, out)
    snapshot = find_snapshot(hub_id)
    gaps = find_gaps(snapshot) if snapshot else Gaps()
    if _downloads.get() and (snapshot is None or gaps):
        from patchc.hub_download import download  # rarely needed, and slow to import

        snapshot = download(hub_id, progress)
        gaps = find_gaps(snapshot)
    if snapshot is None:
        raise _missing(text, hub_id, repository)
    _tell(text, hub_id, snapshot, gaps)
    return snapshot.folder


def is_cached(text: str) -> bool:
    """Whether a text is spelled as a hub id of a model that the cache has, at any revision."""
    hub_id = parse_id(text)
    return hub_id is not None and os.path.isdir(repository_of(hub_id))  # noqa: PTH112 (as above)


def _is_local(text: str) -> bool:
    try:
        os.lstat(text)
    except PermissionError:
        return True  # maybe: what opens the path tells of it
    except OSError:
        return False
    return True


def _refuse_shadow(hub_id: HubId, out: PathLike) -> None:
    written = os.path.normpath(os.fspath(out))
    for spelled in (hub_id.name, str(hub_id)):
        if written == spelled or written.startswith(f"{spelled}/"):
            raise OutputError(
                f"output {os.fspath(out)} is spelled as the hub id that is read: from then on, "
                f"{spelled} would be taken as this local path; choose another name"
            )


def _each_local(given: Any, name: str, progress: Progress, out: Any) -> Any:
    if isinstance(given, str | os.PathLike):
        check_named(given, name)
        return local_model(given, progress, out)
    if isinstance(given, Iterable) and not isinstance(given, bytes):
        return [_each_local(one, name, progress, out) for one in given]
    return given


def _tell(text: str, hub_id: HubId, snapshot: Snapshot, gaps: Gaps) -> None:
    fetch = f"`{hub_id.fetch_command}`"
    if gaps.weights:
        remedy = "a download brought no more; check the network, and the model's page on the hub"
        if not _downloads.get():
            remedy = f"complete it with {fetch}, or give --download"
        raise MissingCheckpointError(
            f"{text}: the hub's cache has this model in part; {snapshot.folder} lacks "
            f"{gaps.weights}; {remedy}",
            str(snapshot.folder),
        )
    revision = hub_id.revision or MAIN
    commit = "" if revision == snapshot.commit else f", commit {snapshot.commit}"
    note(f"{text}: taken from the hub's cache, revision {revision}{commit}: {snapshot.folder}")
    if gaps.others:
        note(f"{text}: the hub's cache lacks {gaps.others}, which the hub has; {fetch} fetches it")


def _missing(text: str, hub_id: HubId, repository: Path) -> MissingCheckpointError:
    fetch = f"fetch it with `{hub_id.fetch_command}`, or give --download"
    if not os.path.isdir(repository):  # noqa: PTH112 (as above)
        message = (
            f"{text}: no such file or folder, and the hub's cache ({cache_folder()}) has no model "
            f"of this name; if a hub has it, {fetch}"
        )
    else:
        known = ", ".join(known_revisions(repository)) or "none"
        if commits := commits_meant(hub_id):
            meant = " or ".join(f"{hub_id.name}@{commit}" for commit in commits)
            fetch = f"a commit is named by all of its 40 digits: write {meant}"
        message = (
            f"{text}: the hub's cache ({cache_folder()}) has this model, and not its revision "
            f"{hub_id.revision or MAIN!r} (there are: {known}); {fetch}"
        )
    return MissingCheckpointError(message, str(repository))
