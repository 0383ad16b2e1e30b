"""The progress of long work: a bar on a terminal, and elsewhere a line now and then."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from patchc.cli.output import printable, size
from patchc.cli.streams import drawing_stream, printing_above, say
from patchc.cli.voice import Voice, voice
from patchc.jit import telling_of_compilation
from patchc.progress import Progress, ProgressEvent, ignore_progress

_COMPILING = "compiling for this processor, once"
_WITHOUT_A_BAR = ("dumb", "unknown")
"""Terminals whose lines stay as they are once written."""
_FIRST, _EVERY, _EVERY_IF_VERBOSE = 10.0, 30.0, 5.0
"""Seconds before the first line, and between lines."""


@contextmanager
def showing_progress() -> Iterator[Progress]:
    """Give a callback that shows progress on standard error, as the command's manner is."""
    manner = voice()
    if manner.quiet:
        yield ignore_progress
    elif sys.stderr.isatty() and os.environ.get("TERM") not in _WITHOUT_A_BAR:
        with _bar(manner) as show:
            yield show
    else:
        lines = ProgressLines(manner, lambda text: say(text, problem=True))
        with telling_of_compilation(lines.compiling):
            yield lines


@dataclass
class _Stage:
    """When a stage was first heard of, and how far it was and is."""

    begun: float
    first: int
    done: int
    ended: bool = False


class ProgressLines:
    """A callback that writes a line now and then; short work stays silent.

    Args:
        manner: of the command; a verbose one tells where each stage begins and ends.
        write: takes a line.
        clock: tells the seconds.
    """

    def __init__(
        self,
        manner: Voice,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._verbose = manner.verbose
        self._before = f"patchc: {manner.command}: " if manner.command else "patchc: "
        self._write = write
        self._clock = clock
        self._wait = _EVERY_IF_VERBOSE if manner.verbose else _FIRST
        self._last = clock()
        self._stages: dict[str, _Stage] = {}
        self._compiled = False
        self._lock = threading.Lock()

    def __call__(self, event: ProgressEvent) -> None:
        """Hear of a step, from any thread."""
        with self._lock:
            now = self._clock()
            stage = self._stages.get(event.stage)
            if stage is None or event.done < stage.done:
                stage = self._stages[event.stage] = _Stage(now, event.done, event.done)
                if self._verbose:
                    self._tell(f"{event.stage} begins")
            stage.done = event.done
            if self._verbose and event.done >= event.total and not stage.ended:
                stage.ended = True
                self._tell(f"{event.stage} is done, {_duration(now - stage.begun)}")
            elif now - self._last >= self._wait and event.done < event.total:
                self._tell(_describe(event, stage, now))

    def compiling(self, begins: bool) -> None:
        """Hear that the compilation of a loop begins or has ended."""
        with self._lock:
            due = self._verbose or self._clock() - self._last >= self._wait
            if begins and due and not self._compiled:
                self._compiled = True
                self._tell(_COMPILING)

    def _tell(self, text: str) -> None:
        self._last = self._clock()
        self._wait = _EVERY_IF_VERBOSE if self._verbose else _EVERY
        self._write(printable(self._before + text))


def _describe(event: ProgressEvent, stage: _Stage, now: float) -> str:
    total = max(1, event.total)
    counted = (
        f"{size(event.done)} of {size(event.total)}"
        if event.unit == "bytes"
        else f"{event.done:,} of {event.total:,} {event.unit}"
    )
    parts = [f"{event.stage} {event.done / total:.0%}", counted]
    if event.detail:
        parts.append(event.detail)
    if done := event.done - stage.first:
        left = (now - stage.begun) * (event.total - event.done) / done
        parts.append(f"{_duration(left)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def _bar(manner: Voice) -> Iterator[Progress]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[detail]}", markup=False),
    )
    console = Console(file=drawing_stream())
    with progress.Progress(*columns, console=console, transient=True) as bar, printing_above():
        tasks: dict[str, progress.TaskID] = {}
        lines = ProgressLines(
            manner, lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
        )

        def show(event: ProgressEvent) -> None:
            if event.stage not in tasks:
                tasks[event.stage] = bar.add_task(printable(event.stage), detail="")
            detail = printable(event.detail)
            bar.update(tasks[event.stage], completed=event.done, total=event.total, detail=detail)
            if manner.verbose:
                lines(event)

        compiling = bar.add_task(_COMPILING, total=None, detail="", visible=False)
        with telling_of_compilation(
            lambda begins: bar.update(compiling, visible=begins, refresh=True)
        ):
            yield show
