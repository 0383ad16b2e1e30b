"""Names that some file systems cannot tell apart, or that Windows cannot have."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, islice

from patchc.checkpoint import Checkpoint
from patchc.formats import Patch
from patchc.sides import OTHER, Side

_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)")
_REFUSED = re.compile(r'[<>:"|?*\\]')
_MOST_NOTES = 100


@dataclass(frozen=True)
class NameNote:
    """Names that are not the same everywhere.

    Attributes:
        names: of a tensor or file, or of several that are one name to some systems.
        reason: what is wrong with them, and where.
    """

    names: tuple[str, ...]
    reason: str


def names_of_patch(patch: Patch) -> tuple[NameNote, ...]:
    """Note the names of a patch's tensors and files, on either side; a hundred at most."""
    both = [note for side in OTHER for note in _notes(patch, side, ())]
    return tuple(islice(dict.fromkeys(both), _MOST_NOTES))


def names_of_copy(patch: Patch, model: Checkpoint, target: Side) -> tuple[NameNote, ...]:
    """Note the names of a model's copy on side ``target``; a hundred at most."""
    changed = {file.name for file in patch.index.files}
    kept = {path.as_posix() for path in model.side_files()[0]} | set(model.shards)
    return tuple(islice(_notes(patch, target, kept - changed), _MOST_NOTES))


def _notes(patch: Patch, side: Side, others: Iterable[str]) -> Iterator[NameNote]:
    files = sorted({*others, *(file.name for file in patch.index.files if file.on(side))})
    yield from _one_name("tensor", patch.index.tensors_on(side))
    yield from _one_name("file", dict.fromkeys(place for name in files for place in _places(name)))
    for name in files:
        if reason := _reason_on_windows(name):
            yield NameNote((name,), reason)


def _places(name: str) -> Iterator[str]:
    """A file's folders, the outermost first, and the file."""
    return accumulate(name.split("/"), "{}/{}".format)


def _one_name(what: str, names: Iterable[str]) -> Iterator[NameNote]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_as_one(name), []).append(name)
    for group in groups.values():
        if len(group) > 1:
            reason = f"one {what} name where case, forms of Unicode or final dots are ignored"
            yield NameNote(tuple(group), reason)


def _as_one(name: str) -> str:
    if not name.isascii():
        name = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return "/".join(part.rstrip(". ") for part in name.lower().split("/"))


def _reason_on_windows(name: str) -> str | None:
    for part in name.split("/"):
        if _DEVICE.match(part.casefold()):
            return "the name of a device on Windows"
        if _REFUSED.search(part) or part != part.rstrip(". "):
            return "a name that Windows cannot have"
    return None
