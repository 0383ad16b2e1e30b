"""What a patch does to a model's files, and on which side the model has them.

Headers of shards and their index say where the words of tensors are: they are the weights' layout,
and no reader can do without them. The other files are side files. They never tell whether a model
holds a patch, unless the patch changes nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property

from blake3 import blake3

from patchc.checkpoint import Checkpoint
from patchc.checkpoint.checkpoint import changed_meanwhile
from patchc.checkpoint.journal_path import is_own_file
from patchc.errors import (
    PatchFormatError,
    ResultMismatchError,
    UnsupportedInputError,
    WrongBaseError,
)
from patchc.formats import FileRecord, Patch
from patchc.hashing import files_digest, short
from patchc.other_kinds import START_BYTES
from patchc.patching.cards import is_card
from patchc.patching.code_names import as_windows_sees
from patchc.patching.left_alone import CARDS_ALONE, SideFile, SideFileOptions, in_words
from patchc.patching.side_files import SideFileChange, content_of, in_the_way, size_of, start_of
from patchc.sides import OTHER, Side

_INDEX = ".safetensors.index.json"


def is_layout(file: FileRecord) -> bool:
    """Whether a file says where the words of tensors are."""
    return file.is_header or (file.name.endswith(_INDEX) and "/" not in file.name)


class FileChanges:
    """What a patch does to the files of a model; each is looked at once, and read when needed.

    Raises:
        UnsupportedInputError: the patch changes the layout and the model is one file.
        PatchFormatError: it has a file with a name that patchc keeps for itself, such as a journal.
    """

    def __init__(
        self, patch: Patch, model: Checkpoint, options: SideFileOptions = CARDS_ALONE
    ) -> None:
        self._patch = patch
        self._model = model
        self._options = options
        files = patch.index.files
        layout = [file for file in files if is_layout(file)]
        whole = len(layout) == 1 and layout[0].is_header and layout[0].in_base
        whole = whole and layout[0].in_result
        if layout and not model.is_folder and not whole:
            names = ", ".join(file.name for file in layout[:3])
            raise UnsupportedInputError(
                f"{patch.path} changes files of the model's folder ({names}); name the folder "
                f"in place of {model.path}"
            )
        for file in files:
            if any(is_own_file(as_windows_sees(part)) for part in file.name.split("/")):
                raise PatchFormatError(
                    f"{patch.path}: file {file.name[:80]!r} has a name that patchc keeps for its "
                    "own files, and no honest patch has one; fetch or build it again"
                )

    @cached_property
    def _found(self) -> dict[str, SideFile]:
        return {file.name: self._look(file) for file in self._patch.index.files}

    def side_with(self, weights: Side | None) -> Side | None:
        """The side that the model is on, whose weights are on ``weights``; None: both have them so.

        The layout must be on that side, too. Where neither tells, the side files do: all of them
        but cards, and cards where there are no others. A file on neither side tells nothing. None:
        no file tells, or they contradict each other.

        Raises:
            WrongBaseError: naming the first file of the layout that is elsewhere.
            CheckpointError: a file cannot be read.
        """
        side = weights
        for file in self._layout():
            found = self._found[file.name]
            if found.state not in OTHER:
                raise self._wrong(file, found.what)
            if found.state != (side or found.state):
                others = f"the weights are the {weights}'s" if weights else "others are not"
                raise self._wrong(file, f"it is {found.what}, and {others}")
            side = side or ("base" if found.state == "base" else "result")
        if side:
            return side
        states = {self._found[name].state for name in self._telling()}
        told = [one for one in OTHER if one in states]
        return told[0] if len(told) == 1 else None

    @property
    def weights_tell(self) -> bool:
        """Whether the sides differ in their weights, apart from the layout."""
        return self._patch.index.base_digest != self._patch.index.result_digest

    def has_layout_of(self, side: Side) -> bool:
        """Whether all of the layout is on a side."""
        return self._are_on(side, [file.name for file in self._layout()])

    def are_on(self, side: Side, without: Collection[str] = ()) -> bool:
        """Whether the files that tell are all on a side: the layout; side files where nothing else.

        Files named in ``without`` are not looked at.
        """
        names = [file.name for file in self._layout()]
        if not (names or self.weights_tell):
            names = self._telling()
        return self._are_on(side, [name for name in names if name not in without])

    def apart(self, side: Side | None, without: Collection[str] = ()) -> tuple[SideFile, ...]:
        """The side files that are not on ``side``; on neither, for None.

        Files named in ``without`` are not looked at.
        """
        sides = OTHER if side is None else (side,)
        found = (one for one in self._beside() if one.name not in without)
        return tuple(one for one in found if one.state not in sides)

    def count(self, side: Side) -> int:
        """Number of files on a side, headers included."""
        return sum(one.state == side for one in self._found.values())

    def changes(self, target: Side) -> tuple[SideFileChange, ...]:
        """What a copy on side ``target`` has otherwise than the model."""
        return tuple(
            SideFileChange(
                file.name,
                "changed" if file.in_base and file.in_result
                else "added" if file.on(target)
                else "removed",
            )
            for _, file in self._to_write(target)
        )  # fmt: skip

    def headers(self, target: Side) -> dict[str, bytes | None]:
        """Shard name → its header on side ``target``, for the headers that change."""
        return {
            file.name if self._model.is_folder else next(iter(self._model.shards)): (
                self._patch.read_file(number, self._read(file), target)
            )
            for number, file in enumerate(self._patch.index.files)
            if file.is_header
        }

    def side_files(self, target: Side) -> Iterator[tuple[FileRecord, bytes | None, bytes]]:
        """The side files to write to reach side ``target``, one at a time; the index is among them.

        Each comes with its content now, None where there is none, and the one to write. Files that
        are not on the other side are left alone.

        Raises:
            CheckpointError: one was changed since it was looked at.
        """
        for number, file in self._to_write(target):
            found, source = self._find(file)
            if found != OTHER[target]:
                raise changed_meanwhile(self._model.path / file.name)
            content = self._patch.read_file(number, source, target)
            if content is not None:
                yield file, source, content

    def check(self) -> None:
        """Compare both sides' full digests over all changed files with those in the index.

        Where a file is on neither side, there is nothing to compare.

        Raises:
            ResultMismatchError: they differ.
            CheckpointError: a file was changed since it was looked at.
        """
        if any(one.state not in OTHER for one in self._found.values()):
            return
        sides: dict[Side, list[tuple[str, bytes]]] = {"base": [], "result": []}
        for number, file in enumerate(self._patch.index.files):
            found, content = self._find(file)
            if found is None:
                raise changed_meanwhile(self._model.path / file.name)
            contents = {found: content}
            contents[OTHER[found]] = self._patch.read_file(number, contents[found], OTHER[found])
            for side, digests in sides.items():
                content = contents[side]
                if content is not None:
                    digests.append((file.name, blake3(content).digest()))
        whole = (files_digest(sides["base"]), files_digest(sides["result"]))
        if self._patch.index.files_digests not in (None, whole):
            raise ResultMismatchError(
                f"{self._patch.path}: every file matches and the digest over them does not; the "
                "patch is not sound, fetch or build it again"
            )

    def _layout(self) -> list[FileRecord]:
        return [file for file in self._patch.index.files if is_layout(file)]

    def _beside(self) -> list[SideFile]:
        return [self._found[f.name] for f in self._patch.index.files if not is_layout(f)]

    def _telling(self) -> list[str]:
        """The side files that tell the side of a patch that changes nothing but side files."""
        beside = self._beside()
        return [one.name for one in beside if not one.is_card] or [one.name for one in beside]

    def _are_on(self, side: Side, names: Collection[str]) -> bool:
        return all(self._found[name].state == side for name in names)

    def _to_write(self, target: Side) -> list[tuple[int, FileRecord]]:
        return [
            (number, file)
            for number, file in enumerate(self._patch.index.files)
            if not file.is_header and self._found[file.name].state == OTHER[target]
        ]

    def _look(self, file: FileRecord) -> SideFile:
        card = is_card(file.name)
        refused = self._options.refuse(card)
        if not (self._model.is_folder or file.is_header):
            return SideFile(file.name, "missing", "a single file has none", card, refused)
        if not is_layout(file) and (what := in_the_way(self._model, file.name)):
            return SideFile(file.name, "differs", what, card, refused)
        side, content = self._find(file)
        state = side or ("missing" if content is None else "differs")
        return SideFile(file.name, state, in_words(file.name, side, content), card, refused)

    def _find(self, file: FileRecord) -> tuple[Side | None, bytes | None]:
        """The side on which the model has a file, if any, and its content, None where missing.

        Of a file that is larger than on both sides, only the start is read.
        """
        path = self._model.path / file.name
        if not file.is_header and size_of(path) > max(map(file.size_on, OTHER)):
            return None, start_of(path, START_BYTES)
        content = self._read(file)
        digest = None if content is None else short(blake3(content).digest())
        for side in OTHER:
            if digest == (file.digest_on(side) if file.on(side) else None):
                return side, content
        return None, content

    def _read(self, file: FileRecord) -> bytes | None:
        if not (self._model.is_folder or file.is_header):
            return None
        return content_of(self._model, file.name, file.is_header)

    def _wrong(self, file: FileRecord, difference: str) -> WrongBaseError:
        layout = "" if file.is_header else "; it belongs to the weights: no option leaves it alone"
        return WrongBaseError(
            f"{self._model.path} is not the model that {self._patch.path} was made for: file "
            f"{file.name!r}: {difference}{layout}"
        )
