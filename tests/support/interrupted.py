"""Interrupts a derivation at any moment at which it does something with its scratch folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import Tensor

from patchc.derivation.output import write_json
from patchc.layered.scratch import Scratch, ScratchFile
from patchc.progress import ProgressEvent


class InterruptedRunError(BaseException):
    """Nothing catches it, as nothing catches a kill."""


class Moments:
    """The moments of a run, in order, such as "write se-states"; it ends at one of them.

    Attributes:
        seen: the moments so far.
        events: the progress that was reported.

    Args:
        last: the number of the moment at which to end; a write gets half of its bytes to the file.
        end: called there.
    """

    def __init__(self, last: int | None, end: Callable[[], None]) -> None:
        self.seen: list[str] = []
        self.events: list[ProgressEvent] = []
        self._last = last
        self._end = end

    def progress(self, event: ProgressEvent) -> None:
        self.reach(f"progress {event.stage}")
        self.events.append(event)

    def reach(self, moment: str) -> None:
        self.seen.append(moment)
        if self.ends:
            self._end()

    @property
    def ends(self) -> bool:
        return len(self.seen) - 1 == self._last


def interrupt() -> None:
    raise InterruptedRunError


@contextmanager
def watched(last: int | None, end: Callable[[], None] = interrupt) -> Iterator[Moments]:
    """Watch all scratch folders, and end the run at a moment."""
    moments = Moments(last, end)
    with pytest.MonkeyPatch.context() as patch:
        write, read = ScratchFile.write, ScratchFile.read
        note, file, remove = Scratch.note, Scratch.file, Scratch.remove_files

        def writes(self: ScratchFile, offset: int, values: Tensor) -> None:
            moments.seen.append(f"write {self.path.stem}")
            if moments.ends:
                # A counter's 16 bytes are written at once.
                half = 0 if self.path.stem.endswith("counter") else values.numel() // 2
                write(self, offset, values.view(-1)[:half])
                moments._end()
            write(self, offset, values)

        def reads(self: ScratchFile, offset: int, values: Tensor) -> None:
            moments.reach(f"read {self.path.stem}")
            read(self, offset, values)

        def notes(self: Scratch, **found: Any) -> None:
            moments.reach(f"note {' '.join(found)}")
            note(self, **found)

        def opens(self: Scratch, name: str, size: int) -> ScratchFile:
            moments.reach(f"file {name}")
            return file(self, name, size)

        def removes(self: Scratch, start: str) -> None:
            moments.reach(f"remove {start}")
            remove(self, start)

        def records(*args: Any) -> None:
            moments.reach("record")
            write_json(*args)

        patch.setattr(ScratchFile, "write", writes)
        patch.setattr(ScratchFile, "read", reads)
        patch.setattr(Scratch, "note", notes)
        patch.setattr(Scratch, "file", opens)
        patch.setattr(Scratch, "remove_files", removes)
        patch.setattr("patchc.derivation.direction.write_json", records)
        yield moments
