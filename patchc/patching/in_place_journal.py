"""The journal of a run in place: what brings back the chunks that are being written.

Before a group of chunks is touched, their images go into the journal and are made durable. The next
group replaces them, once the writes of this one are durable too. Whatever interrupts a run, each
chunk of the model is whole, or its image is in the journal.

An image needs no checksum of its own: the patch has the digest of every chunk that it changes. An
image that does not lead to it was itself cut off, and then its group was not touched.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from patchc.checkpoint.journal_path import journal_path
from patchc.checkpoint.writer import write_all
from patchc.dtypes import Words
from patchc.durability import reserve_space, sync, sync_path
from patchc.errors import PartlyPatchedError, StorageError
from patchc.formats import Patch
from patchc.locks import OWNER_BYTES, LockFile
from patchc.output_checks import check_space
from patchc.patching.chunk_images import ChunkImage, image_nbytes
from patchc.patching.rewrite import VERBS
from patchc.sides import OTHER, Side
from patchc.strict_json import parse_json
from patchc.system_errors import storage_errors

_MAGIC = b"patchcJ1"
_LENGTH = len(_MAGIC) + 32
_HEADER = _LENGTH + 4
MOST_LISTED = 4 << 20
"""Bytes of the list of a group's chunks, at most, in the journal's header."""

_PRIVATE = 0o600  # it holds words of the model, which others may not read
_UNRESERVABLE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


@dataclass(frozen=True)
class JournaledGroup:
    """The group of chunks that a journal holds.

    Attributes:
        root: the root of the patch, in hexadecimal.
        patch: the name of its file.
        target: the side that the run was leading to.
        images: (tensor name, chunk number) → offset and size in the journal, in bytes.
    """

    root: str
    patch: str
    target: Side
    images: dict[tuple[str, int], tuple[int, int]]


class JournalImages:
    """The chunks that an interrupted run left in its journal.

    Attributes:
        group: what they are.
    """

    def __init__(self, path: Path, descriptor: int, group: JournaledGroup) -> None:
        self.group = group
        self._path = path
        self._descriptor = descriptor

    def read_image(self, tensor: str, chunk: int, words: Words) -> bool:
        """Bring back a chunk in ``words``, as it is in the model; False where there is no image.

        Raises:
            StorageError: the journal cannot be read.
        """
        offset, nbytes = self.group.images.get((tensor, chunk), (0, 0))
        count, rest = divmod(nbytes, image_nbytes(1, words.itemsize))
        if rest or not 0 < count <= len(words):
            return False
        image = ChunkImage.empty(count, words.dtype)
        with storage_errors(self._path, "read"):
            whole = _read_all(self._descriptor, offset, image.positions) and _read_all(
                self._descriptor, offset + image.positions.nbytes, image.words
            )
        return whole and image.restore(words)


class InPlaceJournal:
    """The journal of a model, and the lock of a run in place on it; a context manager.

    The file stays after an error once a group was begun, and if it was left by another run that
    this one did not finish. :meth:`remove` ends it.

    Attributes:
        left: what an interrupted run left; None if there is nothing, or nothing whole.
        begun: whether chunks of the model may have been written.

    Raises:
        InUseError: another process works on the model in place.
        OutputError: something else is in the way.
        StorageError: the file cannot be created, so the model could not be written either.
    """

    def __init__(self, model: Path, patch: Patch, target: Side) -> None:
        self._lock = LockFile(journal_path(model), model, _PRIVATE)
        self._path = self._lock.path
        self._facts = {"root": patch.root.hex(), "patch": patch.path.name, "target": target}
        self.begun = False
        try:
            self.left = _read_images(self._path, self._lock.descriptor)
        except BaseException:
            with self._lock:
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if not self.begun and self.left is None:
                with suppress(StorageError):
                    self._lock.remove()

    def reserve(self, nbytes: int) -> None:
        """Make sure of room for the images of the largest group, before the first is recorded.

        Raises:
            StorageError: there is none.
        """
        have = os.fstat(self._lock.descriptor).st_blocks * 512 if self.left else 0
        check_space(self._path, max(0, nbytes - have))
        with storage_errors(self._path, "write"):
            try:
                reserve_space(self._lock.descriptor, nbytes)
            except OSError as error:
                if error.errno not in _UNRESERVABLE:
                    raise

    def record(self, images: Sequence[tuple[str, int, ChunkImage]]) -> None:
        """Replace the group by one of these chunks, and make it durable; then they may be written.

        What the journal held has to be durable in the model.

        Args:
            images: tensor name, chunk number and image of each.

        Raises:
            StorageError: the operating system refused.
        """
        chunks = [
            (tensor, chunk, image_nbytes(len(image.positions), image.words.itemsize))
            for tensor, chunk, image in images
        ]
        listed = json.dumps({**self._facts, "chunks": chunks}).encode()
        header = _MAGIC + blake3(listed).digest() + len(listed).to_bytes(4, "little") + listed
        with storage_errors(self._path, "write"):
            offset = self._write(OWNER_BYTES, np.frombuffer(header, np.uint8))
            for _, _, image in images:
                offset = self._write(offset, image.positions)
                offset = self._write(offset, image.words)
            sync(self._lock.descriptor)
            if not self.begun:
                sync_path(self._path.parent)
        self.begun = True

    def _write(self, offset: int, data: NDArray[np.generic]) -> int:
        write_all(self._lock.descriptor, offset, data)
        return offset + data.nbytes

    def remove(self) -> None:
        """Remove the file, once the whole model is durable.

        A file that cannot be removed stays: it is of no use and does no harm, and the next run in
        place removes it. So it does not turn a finished run into a failure.
        """
        with suppress(OSError, StorageError):
            self._lock.remove()
            sync_path(self._path.parent)
        self.left, self.begun = None, False


def check_place(model: Path) -> None:
    """Refuse a model beside which no journal can be created, without trying.

    Raises:
        StorageError: naming the folder.
    """
    folder = journal_path(model).parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(
            f"cannot write in {folder}, where a run in place keeps its journal; change its "
            "permissions, mount it for writing, or write a copy with -o"
        )


@contextmanager
def left_journal(model: Path) -> Iterator[JournalImages | None]:
    """Open the journal that an interrupted run left beside a model, for those who only read it."""
    path = journal_path(model)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield None
        return
    try:
        yield _read_images(path, descriptor)
    finally:
        os.close(descriptor)


def interrupted(model: object, left: JournaledGroup) -> PartlyPatchedError:
    """The error for a model in which a run in place was cut off, and has to be ended first."""
    return PartlyPatchedError(
        f"{model}: {VERBS[left.target]} --in-place with {left.patch!r:.250} (root "
        f"{left.root!r:.80}) was cut off there; run it again, or take it back with "
        f"{VERBS[OTHER[left.target]]} --in-place and the same patch"
    )


def _read_images(path: Path, descriptor: int) -> JournalImages | None:
    """Parse a journal, which may be cut off anywhere, or come from a stranger.

    Raises:
        StorageError: it cannot be read.
    """
    unfit = suppress(ValueError, RecursionError, KeyError, TypeError, OverflowError)
    with storage_errors(path, "read"), unfit:
        head = os.pread(descriptor, _HEADER, OWNER_BYTES)
        size = int.from_bytes(head[_LENGTH:], "little")
        if len(head) < _HEADER or not head.startswith(_MAGIC) or size > 2 * MOST_LISTED:
            return None
        listed = os.pread(descriptor, size, OWNER_BYTES + _HEADER)
        if blake3(listed).digest() == head[len(_MAGIC) : _LENGTH]:
            room = os.fstat(descriptor).st_size
            group = _parse_group(parse_json(listed), OWNER_BYTES + _HEADER + size, room)
            return JournalImages(path, descriptor, group)
    return None


def _parse_group(listed: dict[str, Any], offset: int, room: int) -> JournaledGroup:
    images = {}
    for tensor, chunk, nbytes in listed["chunks"]:
        if not 0 <= nbytes <= room - offset:
            raise ValueError(nbytes)
        images[str(tensor), int(chunk)] = (offset, int(nbytes))
        offset += int(nbytes)
    target: Side = "base" if listed["target"] == "base" else "result"
    return JournaledGroup(str(listed["root"]), str(listed["patch"]), target, images)


def _read_all(descriptor: int, offset: int, out: NDArray[np.generic]) -> bool:
    view = out.view(np.uint8).data
    while view:
        count = os.preadv(descriptor, [view], offset)
        if not count:
            return False
        view, offset = view[count:], offset + count
    return True
