"""A whole checkpoint: its files, its tensors, and reads of a tensor's words from the files."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint.files_beside import Accept, find_beside
from patchc.checkpoint.folder_files import files_below, leads_to_folder
from patchc.checkpoint.header import Shard, Stamp, TensorInfo, read_shard, stamp_of
from patchc.checkpoint.journal_path import is_own_file, journal_path
from patchc.checkpoint.left_aside import (
    ADAPTER_CONFIG,
    SCORES,
    LeftAside,
    is_adapter,
    tell,
    why_left_aside,
)
from patchc.checkpoint.loaded_files import MODEL, LoadedFiles, find_loaded_files
from patchc.checkpoint.refuse import holds_weights, refuse_component, refuse_foreign_file
from patchc.checkpoint.tensor_copies import TensorCopies
from patchc.checkpoint.visitors import has_writer
from patchc.checkpoint.weight_map import read_shards
from patchc.durability import close, sync
from patchc.errors import (
    AlreadyPatchedError,
    CheckpointError,
    MissingCheckpointError,
    NotPatchedError,
    PartlyPatchedError,
    PatchFormatError,
    ResultMismatchError,
    WrongBaseError,
    unreadable,
)
from patchc.locks import lock_descriptor, refuse_if_locked
from patchc.notes import note
from patchc.regular_file import NO_FILE_HAS, check_folder_files, is_possible, open_regular
from patchc.system_errors import reason, storage_errors

_BLAMES = (
    AlreadyPatchedError,
    NotPatchedError,
    PartlyPatchedError,
    PatchFormatError,
    ResultMismatchError,
    WrongBaseError,
)


class Checkpoint:
    """An open checkpoint; a context manager that closes its files.

    An error about what the model or the patch is does not leave the block if the files were changed
    meanwhile by another process: that is told instead.

    Attributes:
        path: the folder or file that was opened.
        is_folder: whether it is a folder.
        files: which files are the model, by the rules of its loaders.
        index: the index that names them; None without one.
        shards: file name → :class:`Shard`, in the order in which they are loaded.
        tensors: tensor name → :class:`TensorInfo`, by shard, then in the order of the file.
        copies: for each tensor that several files hold, which copy is in ``tensors``.
    """

    def __init__(
        self,
        path: Path,
        files: LoadedFiles,
        shards: Sequence[Shard],
        not_beside: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self.is_folder = path.is_dir()
        self.files = files
        self.index = path / files.index if files.index else None
        self.shards = {shard.name: shard for shard in shards}
        self.copies = TensorCopies.find(shards, files.weight_map)
        self.tensors: dict[str, TensorInfo] = self.copies.taken
        self._not_beside = not_beside or {}
        self._descriptors: dict[str, int] = {}
        with ExitStack() as opened:
            for shard in shards:
                try:
                    descriptor = open_regular(shard.path)
                except OSError as error:
                    message = f"{shard.path}: cannot open: {reason(error)}"
                    raise unreadable(CheckpointError, message, error) from error
                opened.callback(close, descriptor)
                self._descriptors[shard.name] = descriptor
            self.copies.check(path, self.read_bytes)
            self._files = opened.pop_all()
        self._stamps = {name: shard.stamp for name, shard in self.shards.items()}

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        with self._files:
            if isinstance(error, _BLAMES):
                self.check_unchanged()

    @property
    def shards_beside(self) -> list[str]:
        """Names of those files that lie beside the model's own and belong to the checkpoint."""
        return [name for name in self.shards if name not in self.files.names]

    @property
    def nbytes(self) -> int:
        """Bytes of all its safetensors files, headers included."""
        return sum(shard.size for shard in self.shards.values())

    @property
    def main_dtype(self) -> str | None:
        """The name of the dtype that most words have; None without tensors."""
        words: Counter[str] = Counter()
        for tensor in self.tensors.values():
            words[tensor.dtype.name] += tensor.words
        return max(words, key=words.__getitem__, default=None)

    def read_words(
        self, tensor: TensorInfo, first: int, out: NDArray[np.unsignedinteger]
    ) -> NDArray[np.unsignedinteger]:
        """Read ``len(out)`` words of a tensor from word ``first`` on into ``out``, and return it.

        Safe to call from several threads. Releases the interpreter lock while reading.

        Raises:
            CheckpointError: the file became unreadable or shorter.
        """
        self.read_bytes(tensor.shard, tensor.offset_of(first), out)
        return out

    def read_bytes(self, shard: str, offset: int, out: NDArray[np.generic]) -> None:
        """Read ``out.nbytes`` bytes of a shard file from byte ``offset`` on.

        Raises:
            CheckpointError: the file became unreadable or shorter.
        """
        view = out.view(np.uint8).data
        while view:
            try:
                count = os.preadv(self._descriptors[shard], [view], offset)
            except OSError as error:
                raise CheckpointError(
                    f"{self.shards[shard].path}: cannot read at byte {offset}: {reason(error)}"
                ) from error
            if count == 0:
                raise CheckpointError(
                    f"{self.shards[shard].path}: ends at byte {offset}, before its tensors do; "
                    "was it changed while in use?"
                )
            view = view[count:]
            offset += count

    def read_header(self, shard: str) -> bytes:
        """Read the header of a shard file, with its length before it.

        Raises:
            CheckpointError: as :meth:`read_bytes`.
        """
        header = np.empty(self.shards[shard].data_start, np.uint8)
        self.read_bytes(shard, 0, header)
        return header.tobytes()

    def stat(self, shard: str) -> os.stat_result:
        """Return the operating system's status of an open shard file."""
        return os.fstat(self._descriptors[shard])

    def check_unchanged(self, *shards: str) -> None:
        """Refuse if a file was replaced or written to since its header was read.

        For commands that read a tensor more than once and need the same bytes each time.

        Args:
            shards: names of the shards to look at; all by default.

        Raises:
            CheckpointError: naming the file.
        """
        for name in shards or self.shards:
            if self._stamp(name) != self._stamps[name]:
                raise changed_meanwhile(self.shards[name].path)

    def sync(self) -> None:
        """Make all earlier writes to the files durable.

        Raises:
            StorageError: the operating system refused.
        """
        for name, descriptor in self._descriptors.items():
            with storage_errors(self.shards[name].path, "make durable"):
                sync(descriptor)

    def side_files(self) -> tuple[list[Path], list[Path]]:
        """List the folder's other files: those that belong beside the weights, and the others.

        The first list (config, tokenizer, chat template, …) is copied along with a patched model.
        The second holds what is left aside, linked folders and other weight files: a patch does not
        change those, and a loader could pick them from the copy. Paths are relative. Hidden folders
        are in neither.

        Raises:
            CheckpointError: a folder or a file cannot be looked at, or folders are nested too deep.
        """
        beside: list[Path] = []
        foreign: list[Path] = []
        for path in files_below(self.path) if self.is_folder else ():
            relative = path.relative_to(self.path)
            if leads_to_folder(path) or (holds_weights(path.name) and path != self.index):
                if str(relative) not in self.shards:
                    foreign.append(relative)
            elif not is_own_file(path.name):
                beside.append(relative)
        # An adapter and its configuration are no use without each other.
        if any(is_adapter(str(relative)) for relative in foreign):
            foreign += [relative for relative in beside if str(relative) == ADAPTER_CONFIG]
            beside = [relative for relative in beside if str(relative) != ADAPTER_CONFIG]
        return beside, foreign

    @cached_property
    def left_aside(self) -> tuple[LeftAside, ...]:
        """The weight files of the folder that do not belong to the checkpoint, in name order.

        Empty where not all of the folder can be looked at: :meth:`side_files` tells of that.
        """
        found = []
        try:
            foreign = self.side_files()[1]
        except CheckpointError:
            return ()
        for relative in foreign:
            name = relative.as_posix()
            is_link = leads_to_folder(self.path / relative)
            why = why_left_aside(name, self.files, is_link)
            if why != SCORES:
                why = self._not_beside.get(name, why)
            found.append(LeftAside(name, why))
        return tuple(sorted(found, key=lambda one: one.name))

    def is_unchanged(self, shard: str, state: os.stat_result) -> bool:
        """Whether a status is that of an open shard file, as it was read or last restamped."""
        return stamp_of(state) == self._stamps[shard]

    def lock(self) -> None:
        """Keep others out who change these files in place, by whatever name they call the model.

        Raises:
            InUseError: one is at work.
        """
        for name, descriptor in self._descriptors.items():
            lock_descriptor(descriptor, self.shards[name].path, self.path)

    def has_other_writers(self) -> bool:
        """Whether another process has a file open to write, where the system can tell.

        This one must not have opened it so.
        """
        return any(map(has_writer, self._descriptors.values()))

    def restamp(self, shard: str) -> bool:
        """Take a shard's present state as unchanged, and tell whether it was another before."""
        before, self._stamps[shard] = self._stamps[shard], self._stamp(shard)
        return before != self._stamps[shard]

    def _stamp(self, shard: str) -> Stamp:
        return stamp_of(self.stat(shard))


def changed_meanwhile(path: Path | None) -> CheckpointError:
    """The error for a file of a checkpoint that somebody else has changed."""
    return CheckpointError(
        f"{path}: was changed while in use, by another program; run again when nothing writes to it"
    )


def open_checkpoint(
    path: str | os.PathLike[str], stem: str = MODEL, beside: Accept | None = None
) -> Checkpoint:
    """Open a safetensors file, or a folder with a single file or an index.

    In a folder, :mod:`patchc.checkpoint.loaded_files` decides which files are the checkpoint. The
    tensors are those in the headers of the files. Other weight files are left aside, and told in a
    note where the stem is that of models.

    Args:
        path: the file or the folder.
        stem: the start of the files' names.
        beside: in a folder, which safetensors files beside the model's own belong to the
            checkpoint too, with their tensors; None for none.

    Raises:
        CheckpointError: it is missing, unreadable or malformed.
        InUseError: another process changes it in place.
        UnsupportedInputError: it holds PyTorch pickles, GGUF, a LoRA adapter or an unknown dtype.
    """
    path = Path(path)
    is_folder = _is_folder(path)
    refuse_if_locked(journal_path(path), path)
    if not is_folder:
        refuse_foreign_file(path)
        shard = read_shard(path)
        refuse_component(path, shard.metadata)
        return Checkpoint(path, LoadedFiles(None, (shard.name,)), [shard])
    files = find_loaded_files(path, stem)
    try:
        check_folder_files(path)
    except OSError as error:
        place = error.filename or path
        raise CheckpointError(f"{place}: cannot read: {reason(error)}") from error
    shards, reasons = read_shards(path, files.names), dict[str, str]()
    if beside:
        more, reasons = find_beside(path, shards, beside)
        shards += more
    model = Checkpoint(path, files, shards, reasons)
    if stem == MODEL:
        _tell(model)
    return model


def _tell(model: Checkpoint) -> None:
    """Tell of entries of the index without a tensor, and of weight files that were left aside."""
    ghosts = [name for name in model.files.weight_map if name not in model.tensors]
    if ghosts:
        more = f" and {len(ghosts) - 1:,} more" if len(ghosts) > 1 else ""
        note(
            f"{model.index}: lists tensor {ghosts[0][:80]!r}{more}, which none of its files holds; "
            "loaders go on without"
        )
    left = tell(model.left_aside)
    if left:
        note(f"{model.path}: left aside, in copies too, since it is not the model: {left}")


def _is_folder(path: Path) -> bool:
    if not is_possible(path):
        raise CheckpointError(f"{str(path)!r:.80} {NO_FILE_HAS}; correct it")
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError as error:
        raise MissingCheckpointError(f"{path}: {reason(error)}", str(path)) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot open: {reason(error)}") from error
