"""What an update changes besides the words of tensors, according to its file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from patchc.formats import FileRecord, PatchIndex
from patchc.sides import Side

Shape = tuple[int, ...]


@dataclass(frozen=True)
class SideCounts:
    """One side of an update: the model that revert writes, or the one that apply writes.

    Attributes:
        tensors, words: of that model.
        changed_tensors, changed: those that the patch changes, or that only this side has.
    """

    tensors: int
    words: int
    changed_tensors: int
    changed: int

    @property
    def density(self) -> float:
        """Share of the words that change."""
        return self.changed / self.words if self.words else 0.0


@dataclass(frozen=True)
class FileChange:
    """A file that an update writes or removes.

    Attributes:
        name: path below the model's folder.
        change: what the update does to it.
        is_header: whether only the header of a safetensors file is meant.
        base_size, result_size: bytes before and after; 0 where the file does not exist.
        nbytes: bytes of the coded change.
    """

    name: str
    change: Literal["added", "removed", "changed"]
    is_header: bool
    base_size: int
    result_size: int
    nbytes: int


@dataclass(frozen=True)
class UpdateReport:
    """Changes of tensors and files.

    Attributes:
        added, removed: names of tensors that only the result has, or only the base, except renamed
            and cast ones.
        renamed: names in base and result of tensors that refer to each other: their bytes are the
            same, apart from the changes that are counted.
        resized: name, shape in the base and in the result.
        cast: name, dtype in the base and in the result.
        files: headers and side files.
        base, result: counts of either side; what only one side has counts there alone.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    resized: tuple[tuple[str, Shape, Shape], ...]
    cast: tuple[tuple[str, str, str], ...]
    files: tuple[FileChange, ...]
    base: SideCounts
    result: SideCounts


def describe_update(index: PatchIndex) -> UpdateReport | None:
    """Describe what an update changes; None for a patch that is not an update."""
    if index.files_digests is None:
        return None
    removed = {name: record for name, record in index.tensors.items() if record.only}
    renamed = [
        (name, record.reference)
        for name, record in removed.items()
        if record.reference in index.added
        and index.added[record.reference].reference == name != record.reference
    ]
    left, taken = {old for old, _ in renamed}, {new for _, new in renamed}
    both = [
        (record, index.added[name])
        for name, record in removed.items()
        if name in index.added and name not in left | taken
    ]
    cast = [(r.name, r.dtype.name, a.dtype.name) for r, a in both if r.dtype != a.dtype]
    pairs = [(r, r) for r in index.tensors.values() if not r.is_plain]
    pairs += [(r, a) for r, a in both if r.dtype == a.dtype]
    resized = [
        (r.name, r.base_shape, a.result_shape)
        for r, a in pairs
        if r.base_shape is not None and a.result_shape is not None
    ]
    changed = {record.name for record, _ in both}
    return UpdateReport(
        added=tuple(name for name in index.added if name not in taken | changed),
        removed=tuple(name for name in removed if name not in left | changed),
        renamed=tuple((old, new) for old, new in renamed if new),
        resized=tuple(sorted(resized)),
        cast=tuple(cast),
        files=tuple(map(_file, index.files)),
        base=_count(index, "base"),
        result=_count(index, "result"),
    )


def _count(index: PatchIndex, side: Side) -> SideCounts:
    tensors = index.tensors_on(side).values()
    words = sum(one.words_on(side) for one in tensors)
    return SideCounts(len(tensors), words, *index.changes_on(side))


def _file(file: FileRecord) -> FileChange:
    change: Literal["added", "removed", "changed"] = "changed"
    if not file.in_base or not file.in_result:
        change = "added" if file.in_result else "removed"
    sizes = file.size_on("base"), file.size_on("result")
    return FileChange(file.name, change, file.is_header, *sizes, file.length)
