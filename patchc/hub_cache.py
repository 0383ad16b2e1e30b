"""Models in the local cache of the Hugging Face hub, by their names; without huggingface_hub.

The cache is found, and a revision is resolved in it, as huggingface_hub's ``snapshot_download``
does it with ``local_files_only=True``. A test compares the two.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from patchc.errors import CheckpointError
from patchc.regular_file import read_regular
from patchc.system_errors import reason

MAIN = "main"
_NAME = r"\w(?:[\w.-]{0,94}\w)?"
_ID = re.compile(rf"(?:{_NAME}/)?{_NAME}", re.ASCII)
_REVISION = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\]{1,250}")
_WHOLE_COMMIT = re.compile("[0-9a-f]{40}")
_COMMIT = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")
_PREFIX = re.compile(r"(?:hf:|https?:)/*(?:(?:www\.)?(?:huggingface\.co|hf\.co)/)?")
_START_OF_COMMIT = re.compile("[0-9a-fA-F]{4,40}")
_MOST_IN_REF = 256
_MOST_NAMED = 5
_REPOSITORY = "models--"
_SNAPSHOTS = "snapshots"
_REMEDY = "remove it, and fetch the model again"


@dataclass(frozen=True)
class HubId:
    """A model's name on a hub, with a branch, a tag or a commit.

    Attributes:
        name: "org/name", or "name" alone.
        revision: what stands behind the "@"; None without one.
    """

    name: str
    revision: str | None

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @property
    def fetch_command(self) -> str:
        """The shell command that fetches the model into the cache."""
        at = f" --revision {shlex.quote(self.revision)}" if self.revision else ""
        return f"hf download {self.name}{at}"


@dataclass(frozen=True)
class Snapshot:
    """The files of a model at one commit, in the cache.

    Attributes:
        folder: where they are.
        repository: the model's folder in the cache.
        commit: the commit.
    """

    folder: Path
    repository: Path
    commit: str


def parse_id(text: str) -> HubId | None:
    """Read ``name`` or ``org/name``, with ``@revision`` or without; None for any other text."""
    name, at, revision = text.partition("@")
    if not _ID.fullmatch(name) or "--" in name or ".." in name or name.endswith(".git"):
        return None
    if at and not _is_revision(revision):
        return None
    return HubId(name, revision or None)


def id_meant(text: str) -> str | None:
    """The id in the address of a model's page, in ``hf:org/name`` and in ``org/name@``."""
    meant = text[prefix.end() :] if (prefix := _PREFIX.match(text)) else text
    meant = meant.removesuffix("@")
    return meant if meant != text and "/" in meant and parse_id(meant) else None


def cache_folder() -> Path:
    """The folder of the cache, by the environment variables that huggingface_hub looks at."""
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = _expanded(os.environ.get("HF_HOME", str(Path(caches) / "huggingface")))
    older = os.environ.get("HUGGINGFACE_HUB_CACHE", str(Path(home) / "hub"))
    found = _expanded(os.environ.get("HF_HUB_CACHE", older))
    return Path(os.path.realpath(os.path.expanduser(found)))  # noqa: PTH111 (it would raise)


def repository_of(hub_id: HubId) -> Path:
    """The folder that a model has in the cache, or would have."""
    return cache_folder() / (_REPOSITORY + hub_id.name.replace("/", "--"))


def find_snapshot(hub_id: HubId) -> Snapshot | None:
    """Find a model's files at a revision; None where the cache lacks the model or the revision.

    A revision is a commit with all of its 40 digits, or what a file in ``refs`` names.

    Raises:
        CheckpointError: that file is no file, cannot be read, or holds no commit.
    """
    repository = repository_of(hub_id)
    revision = hub_id.revision or MAIN
    whole = _WHOLE_COMMIT.fullmatch(revision)
    commit = revision if whole else _read_ref(repository / "refs" / revision)
    if commit is None:
        return None
    folder = repository / _SNAPSHOTS / commit
    return Snapshot(folder, repository, commit) if _is_folder(folder) else None


def commits_meant(hub_id: HubId) -> list[str]:
    """The commits in the cache that a revision is the start of."""
    start = (hub_id.revision or "").lower()
    if not _START_OF_COMMIT.fullmatch(start):
        return []
    commits = (repository_of(hub_id) / _SNAPSHOTS).glob(f"{start}*")
    return sorted(islice((path.name for path in commits if _is_folder(path)), _MOST_NAMED))


def known_revisions(repository: Path) -> list[str]:
    """Some revisions of a model whose files the cache has, or else some commits."""
    refs, snapshots = repository / "refs", repository / _SNAPSHOTS
    named = (str(path.relative_to(refs)) for path in refs.rglob("*") if _leads_on(path, snapshots))
    commits = (path.name for path in snapshots.glob("*") if _is_folder(path))
    return sorted(islice(named, _MOST_NAMED)) or sorted(islice(commits, _MOST_NAMED))


def id_of_folder(folder: Path) -> HubId | None:
    """The name and commit of a folder that is a snapshot in a hub's cache; None for any other."""
    snapshots, repository = folder.parent, folder.parent.parent
    if snapshots.name != _SNAPSHOTS or not repository.name.startswith(_REPOSITORY):
        return None
    return HubId(repository.name.removeprefix(_REPOSITORY).replace("--", "/", 1), folder.name)


def model_name(path: Path) -> str:
    """What to call a model in tables: its folder's name, or its name on the hub."""
    real = Path(os.path.realpath(path))
    found = id_of_folder(real)
    return f"{found.name}@{found.revision:.7}" if found else real.name


def _expanded(text: str) -> str:
    return os.path.expandvars(os.path.expanduser(text))  # noqa: PTH111 (it would raise)


def _is_revision(text: str) -> bool:
    parts = text.split("/")
    return bool(_REVISION.fullmatch(text)) and not any(one in ("", ".", "..") for one in parts)


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 (Path.is_dir raises where it may not look)


def _leads_on(ref: Path, snapshots: Path) -> bool:
    try:
        return _is_folder(snapshots / (_read_ref(ref) or "nothing"))
    except CheckpointError:
        return False


def _read_ref(ref: Path) -> str | None:
    try:
        content = read_regular(ref, _MOST_IN_REF)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        remedy = "" if isinstance(error, PermissionError) else f"; {_REMEDY}"
        message = f"{ref}: cannot read which commit this is: {reason(error)}{remedy}"
        raise CheckpointError(message) from error
    commit = content.decode("ascii", "replace")
    if not _COMMIT.fullmatch(commit):
        raise CheckpointError(f"{ref}: holds {commit[:60]!r}, which is no commit; {_REMEDY}")
    return commit
