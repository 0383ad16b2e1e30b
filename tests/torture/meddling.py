"""Proves that patchc notices when another program lays hands on a model that it works on.

At a random moment of a run, a shard is replaced, removed, cut or overwritten. Some of the writes
come in the middle of one of patchc's own, in the same tick of the file's clock, also from a program
that has had the file open since before the run. Success is reported only if the model is wholly on
the target side, and the output is right. Otherwise the message says that somebody else was at work,
and blames neither patch nor model.

What comes before a run has read a shard's header is not judged for its message, and what comes
after its last look is not judged at all: no program could see it. The table says how many these
were.
"""

from __future__ import annotations

import mmap
import os
import random
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from calls import Call, watch_calls
from cases import IN_PLACE, Case, Place, on_its_own, write_cases
from concurrency import ABOUT_OTHERS
from forks import Ended, Fork, warm
from tables import Matrix

POINTS = 100
FAULTS = ("silent", "blame", "beside", "left", "lost")

_COPY = "apply -o"
_DEEDS = ("replaced", "removed", "cut", "overwritten")
_WITHIN = ("overwritten within a write", "overwritten within a write, held open")
_NEVER = float("inf")
_MOST_TRIES = 4
_MEASURED = 3
_STARTS = 30
"""Seconds within which a run looks at a model."""

_FROM_START = 0.2
"""Share of the moments that are drawn from the whole run; the others come after the first look."""


@dataclass(frozen=True)
class _Shard:
    """A shard of the model that is meddled with, and when the run looked at it.

    The times are in memory that processes share: the end of the run's first look, the beginning of
    its last one, and the beginning and end of the deed.
    """

    path: Path
    times: mmap.mmap

    def reset(self) -> None:
        """Forget when it was looked at, and when it was meddled with."""
        self.times[:] = struct.pack("4d", _NEVER, 0, _NEVER, 0)

    def look(self, call: Call) -> object:
        """Make a call of the run, and note that it looks."""
        first, last, *deed = struct.unpack("4d", self.times)
        if call.kind in ("look", "read"):
            last = time.monotonic()
        try:
            return call.go()
        finally:
            if call.kind == "read":
                first = min(first, time.monotonic())
            self.times[:] = struct.pack("4d", first, last, *deed)

    def meddle(self, deed: Callable[[], None]) -> None:
        """Do something to it, and note when."""
        began = time.monotonic()
        deed()
        self.times[16:] = struct.pack("2d", began, time.monotonic())

    def wait_for_look(self, until: float) -> None:
        """Wait until the run has looked at it, or until a time."""
        while struct.unpack("4d", self.times)[0] == _NEVER and time.monotonic() < until:
            time.sleep(0.0002)

    @property
    def looked_for(self) -> float:
        """Seconds from the first look to the last one."""
        first, last, *_ = struct.unpack("4d", self.times)
        return last - first

    @property
    def was_meddled_with(self) -> bool:
        """Whether it came to that."""
        return struct.unpack("4d", self.times)[2] != _NEVER

    @property
    def was_too_early(self) -> bool:
        """Whether the run had not read it when it was meddled with."""
        first, _, began, _ = struct.unpack("4d", self.times)
        return began < first

    @property
    def was_too_late(self) -> bool:
        """Whether the run did not look at it afterwards."""
        _, last, _, ended = struct.unpack("4d", self.times)
        return ended > last


def run_matrix(folder: Path, matrix: Matrix) -> None:
    """Meddle with a shard at as many moments as the matrix asks for, in each way."""
    cases = write_cases(folder)
    seconds = warm((cases[name] for name in (*IN_PLACE, _COPY)), folder)
    copied = on_its_own(cases[_COPY])
    for case in (*(cases[name] for name in IN_PLACE), copied):
        deeds = _DEEDS if case is copied else (*_DEEDS, *_WITHIN)
        for deed in deeds:
            row = f"{case.name}, {deed}"
            if matrix.asks_for(row):
                point = _Point(folder, case, matrix, row, deed, seconds[case.name])
                numbers = iter(matrix.numbers(_MOST_TRIES * matrix.points))
                while point.during < matrix.points and (number := next(numbers, None)) is not None:
                    point.run(number)


class _Point:
    """Runs of one command during which one thing is done to a shard.

    Attributes:
        during: how many times it was done between the first look and the last.
    """

    def __init__(
        self, folder: Path, case: Case, matrix: Matrix, row: str, deed: str, seconds: float
    ) -> None:
        self._place = Place(folder / "place", case)
        self._log = folder / "log"
        self._aside = folder / "aside"
        self._matrix = matrix
        self._row = row
        self._deed = deed
        self._seconds = seconds
        self._times = mmap.mmap(-1, 32)
        self._span = min(self._measure() for _ in range(_MEASURED))
        self.during = 0

    def run(self, number: int) -> None:
        """Meddle at one moment, and judge what came of it."""
        rng = self._matrix.random(self._row, number)
        self._place.fill()
        shards = sorted(self._place.model.glob("*.safetensors"))
        shard = _Shard(rng.choice(shards), self._times)
        shard.reset()
        if self._deed in _WITHIN:
            ended, how = self._meddle_within(shard, rng)
        else:
            ended, how = self._meddle_outside(shard, rng)
        if not shard.was_meddled_with:  # the run made fewer writes
            return
        early, late = shard.was_too_early, shard.was_too_late
        self.during += not early and not late
        counts = Counter(
            {
                "points": 1,
                "during": not early and not late,
                "before": early,
                "after": late,
                "noticed": bool(ended.code),
                "of no effect": not ended.code and not late,
            }
        )
        faults = [] if late else [*self._judge(ended, early)]
        how = f"{how}, {shard.path.name}"
        self._matrix.add(self._row, number, counts, faults, how, self._place.folder)

    def _meddle_outside(self, shard: _Shard, rng: random.Random) -> tuple[Ended, str]:
        from_start = rng.random() < _FROM_START
        moment = rng.uniform(0, self._seconds if from_start else self._span)
        deed = self._prepare(shard.path, rng)
        arguments = self._place.arguments(self._place.case.command)
        fork = Fork(arguments, self._log, lambda: self._watch(shard))
        if not from_start:
            shard.wait_for_look(fork.began + _STARTS)
        time.sleep(moment)
        shard.meddle(deed)
        since = "the start" if from_start else "the first look"
        return fork.wait(), f"{1000 * moment:.1f} ms after {since}"

    def _measure(self) -> float:
        """Seconds from the first to the last look of a run that nobody meddles with."""
        self._place.fill()
        shard = _Shard(min(self._place.model.glob("*.safetensors")), self._times)
        shard.reset()
        arguments = self._place.arguments(self._place.case.command)
        Fork(arguments, self._log, lambda: self._watch(shard)).wait()
        return shard.looked_for

    def _meddle_within(self, shard: _Shard, rng: random.Random) -> tuple[Ended, str]:
        number, part = rng.randrange(12), rng.choice(("before", "half-way through", "after"))
        held = os.open(shard.path, os.O_RDWR) if "held" in self._deed else None
        data, at = rng.randbytes(rng.randint(1, 64)), rng.random()

        def deed() -> None:
            descriptor = open_file(shard.path, os.O_RDWR) if held is None else held
            header = int.from_bytes(pread(descriptor, 8, 0), "little") + 8
            size = fstat(descriptor).st_size - len(data)
            pwrite(descriptor, data, header + int(at * (size - header)))
            if held is None:
                close_file(descriptor)

        pread, pwrite, open_file, close_file, fstat = (
            os.pread, os.pwrite, os.open, os.close, os.fstat,
        )  # fmt: skip
        written = iter(range(1_000_000))

        def act(call: Call) -> object:
            if call.kind != "write" or next(written) != number:
                return shard.look(call)
            if part == "before":
                shard.meddle(deed)
            result = call.half() if part == "half-way through" else call.go()
            if part != "before":
                shard.meddle(deed)
            return result

        arguments = self._place.arguments(self._place.case.command)
        fork = Fork(arguments, self._log, lambda: self._watch(shard, act))
        ended = fork.wait()
        if held is not None:
            os.close(held)
        return ended, f"{part} write {number}"

    def _watch(self, shard: _Shard, act: Callable[[Call], object] | None = None) -> None:
        decide = act or shard.look
        path = os.path.realpath(shard.path)
        watch_calls(
            (self._place.model,), lambda call: decide(call) if call.path == path else call.go()
        )

    def _prepare(self, shard: Path, rng: random.Random) -> Callable[[], None]:
        """The deed, with all that takes time done before."""
        if self._deed == "removed":
            return shard.unlink
        if self._deed == "cut":
            size = rng.randrange(shard.stat().st_size)
            return lambda: os.truncate(shard, size)
        if self._deed == "overwritten":
            data, at = rng.randbytes(rng.randint(1, 64)), rng.random()
            return lambda: _overwrite(shard, data, at)
        case = self._place.case
        model = rng.choice([model for model in (case.source, case.wanted) if model])
        self._aside.write_bytes((model / shard.name).read_bytes())
        if rng.random() < 0.5:
            _overwrite(self._aside, rng.randbytes(16), rng.random())
        return lambda: _replace(self._aside, shard)

    def _judge(self, ended: Ended, early: bool) -> Iterator[str]:
        place, copies = self._place, "{out}" in self._place.case.command
        if ended.code is None:
            yield "lost: it hangs"
        elif ended.code and not early and not ABOUT_OTHERS.search(ended.errors):
            yield f"blame: code {ended.code}: {ended.errors}"
        if not copies:
            if ended.code == 0 and not place.holds(place.case.wanted):
                yield "silent: the model is not on the target side"
            return
        if ended.code == 0 and place.state() != "complete":
            yield "silent: the output is not complete"
        if ended.code and place.state() != "absent":
            yield f"beside: the output is {place.state()}"
        if place.hidden():
            yield f"left: {place.hidden()}"


def _replace(path: Path, shard: Path) -> None:
    path.replace(shard)


def _overwrite(path: Path, data: bytes, at: float) -> None:
    """Overwrite bytes of a safetensors file at a share of its data."""
    with path.open("r+b") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        end = file.seek(0, os.SEEK_END) - len(data)
        file.seek(start + int(at * (end - start)))
        file.write(data)
