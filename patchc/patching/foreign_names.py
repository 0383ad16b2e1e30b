"""Names that some file systems cannot tell apart, or that Windows cannot have."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

import numpy as np

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
    sides: list[Side] = [*OTHER] if patch.index.files_digests else ["base"]  # others are alike
    notes = (
        note
        for side in sides
        for note in islice(_notes(patch, side, _files_on(patch, side)), _MOST_NOTES)
    )
    return tuple(islice(dict.fromkeys(notes), _MOST_NOTES))


def names_of_copy(patch: Patch, files: Iterable[str], target: Side) -> tuple[NameNote, ...]:
    """Note the names of a copy on side ``target`` with these files; a hundred at most."""
    return tuple(islice(_notes(patch, target, files), _MOST_NOTES))


def _files_on(patch: Patch, side: Side) -> list[str]:
    return [file.name for file in patch.index.files if file.on(side)]


def _notes(patch: Patch, side: Side, names: Iterable[str]) -> Iterator[NameNote]:
    files = sorted(names)
    tensors = [one.name for one in patch.index.records if one.only in (None, side)]
    yield from _one_name("tensor", tensors)
    yield from _one_name("file", [*dict.fromkeys(p for name in files for p in _places(name))])
    for name in files:
        if reason := _reason_on_windows(name):
            yield NameNote((name,), reason)


def _places(name: str) -> Iterator[str]:
    """A file's folders, the outermost first, and the file."""
    return accumulate(name.split("/"), "{}/{}".format)


def _one_name(what: str, names: Sequence[str]) -> Iterator[NameNote]:
    """Note names that are one; a million of them are compared by their hashes first."""
    hashes = np.fromiter((hash(_as_one(name)) for name in names), np.int64, len(names))
    values, counts = np.unique(hashes, return_counts=True)
    groups: dict[str, list[str]] = {}
    for place in np.flatnonzero(np.isin(hashes, values[counts > 1])).tolist():
        groups.setdefault(_as_one(names[place]), []).append(names[place])
    for group in groups.values():
        if len(group) > 1:
            reason = f"one {what} name where case, forms of Unicode or final dots are ignored"
            yield NameNote(tuple(group), reason)


def _as_one(name: str) -> str:
    if not name.isascii():
        name = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    name = name.lower().rstrip(". ")
    return "/".join(part.rstrip(". ") for part in name.split("/")) if "/" in name else name


def _reason_on_windows(name: str) -> str | None:
    for part in name.split("/"):
        if _DEVICE.match(part.casefold()):
            return "the name of a device on Windows"
        if _REFUSED.search(part) or part != part.rstrip(". "):
            return "a name that Windows cannot have"
    return None
