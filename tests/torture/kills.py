"""Proves that a killed command costs nothing: SIGKILL at any instant loses and mixes nothing.

Half of the points fall at a random time of the run, the other half at a random one of its calls
that change the disk: before it, after it, or with half of the bytes written. In place, the runs
that repair are killed too, at a share of the points. Then it is checked, from what is there alone:

- an output is absent or complete, inputs are as they were, and the next run succeeds;
- a model in place is known to ``verify``, completed by one verb and taken back by the other;
- nothing hidden is left after that.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

from calls import CHANGING, Call, watch_calls
from cases import COPIES, IN_PLACE, Case, Place, content, stamps, write_cases
from forks import Ended, Fork, run_fork, warm
from tables import Matrix

from patchc.renaming import remove

POINTS = 200
FAULTS = ("lost", "mixed", "left")

_AGAIN = 0.3
"""Share of the points at which a run is killed again."""

_IN_THE_WAY = re.compile("output (?:folder )?(.+) (?:is not empty|already exists)")

_KNOWN = (0, 10)
"""Exit codes of ``verify`` for a model that a patch can be applied to or taken back from."""


def run_matrix(folder: Path, matrix: Matrix) -> None:
    """Kill runs of each command at as many points as the matrix asks for."""
    cases = write_cases(folder)
    chosen = [cases[name] for name in (*IN_PLACE, *COPIES) if matrix.asks_for(name)]
    kills_in(folder, chosen, matrix, matrix.points)


def kills_in(folder: Path, cases: list[Case], matrix: Matrix, points: int) -> None:
    """Kill runs of these commands, and check what they leave."""
    seconds = warm(cases, folder)
    for case in cases:
        point = _Point(folder, case, matrix, seconds[case.name])
        for number in matrix.numbers(points):
            point.run(number)


class _Point:
    """Kills runs of one command, one point after the other."""

    def __init__(self, folder: Path, case: Case, matrix: Matrix, seconds: float) -> None:
        self._place = Place(folder / "place", case)
        self._case = case
        self._matrix = matrix
        self._seconds = seconds
        self._log = folder / "log"
        self._calls = self._count_calls()
        self._before = stamps(case.inputs)

    def run(self, number: int) -> None:
        """Kill at one point, and check what is left."""
        rng = self._matrix.random(self._case.name, number)
        self._place.fill()
        how = [self._kill(rng, self._case.command)]
        while rng.random() < _AGAIN and self._place.state() != "complete":
            back = self._case.back and rng.random() < 0.5
            how.append(self._kill(rng, self._case.back if back else self._case.command))
        counts = Counter(points=1, **{"killed again": len(how) > 1})
        counts["while writing"] = bool(self._is_touched())
        faults = self._faults_in_place() if self._case.source else self._faults_of_output(counts)
        if stamps(self._case.inputs) != self._before:
            faults.append("lost: an input was changed")
        self._matrix.add(
            self._case.name, number, counts, faults, ", ".join(how), self._place.folder
        )

    def _kill(self, rng: random.Random, command: tuple[str, ...]) -> str:
        arguments = self._place.arguments(command)
        if rng.random() < 0.5:
            moment = rng.uniform(0, self._seconds)
            fork = Fork(arguments, self._log)
            time.sleep(moment)
            fork.kill()
            fork.wait()
            return f"{command[0]} killed after {1000 * moment:.1f} ms"
        at, part = rng.randrange(self._calls), rng.choice(("before", "half-way through", "after"))
        run_fork(arguments, self._log, lambda: self._watch(at, part))
        return f"{command[0]} killed {part} changing call {at}"

    def _watch(self, at: int, part: str) -> None:
        done = iter(range(1_000_000))

        def act(call: Call) -> object:
            if call.kind not in CHANGING or next(done) != at:
                return call.go()
            if part == "half-way through":
                call.half()
            elif part == "after":
                call.go()
            return os.kill(os.getpid(), signal.SIGKILL)

        watch_calls((self._place.folder,), act)

    def _count_calls(self) -> int:
        counted = self._log.with_suffix(".calls")
        counted.write_bytes(b"")
        tally = os.open(counted, os.O_WRONLY | os.O_APPEND)

        def act(call: Call) -> object:
            if call.kind in CHANGING:
                append(tally, b".")
            return call.go()

        append, place = os.write, self._place.fill()
        arguments = place.arguments(self._case.command)
        run_fork(arguments, self._log, lambda: watch_calls((place.folder,), act))
        os.close(tally)
        return counted.stat().st_size

    def _is_touched(self) -> bool:
        if self._case.source:
            return bool(self._place.hidden()) or not self._place.holds(self._case.source)
        return bool(self._place.hidden()) or self._place.state() != "absent"

    def _faults_in_place(self) -> list[str]:
        faults = []
        known = run_fork(self._place.arguments(self._case.verify), self._log)
        if known.code not in _KNOWN:
            faults.append(f"lost: verify ends with {known.code}: {known.errors}")
        for place, command, wanted in (
            (self._place.twin(), self._case.back, self._case.source),
            (self._place, self._case.command, self._case.wanted),
        ):
            ended = run_fork(place.arguments(command), self._log)
            if ended.code:
                faults.append(f"lost: {command[0]} ends with {ended.code}: {ended.errors}")
            elif place.hidden():
                faults.append(f"left: {place.hidden()} after {command[0]}")
            elif not place.holds(wanted):
                faults.append(f"mixed: {command[0]} ended well and led to something else")
        return faults

    def _faults_of_output(self, counts: Counter[str]) -> list[str]:
        faults = []
        if self._place.state() == "wrong" and not self._case.in_parts:
            faults.append("mixed: the output is there and not complete")
        if self._place.state() == "complete":
            remove(self._place.out)
        ended = run_fork(self._place.arguments(self._case.command), self._log)
        while self._case.in_parts and (part := self._whole_part_in_the_way(ended)):
            counts["a part removed"] += 1
            remove(part)
            ended = run_fork(self._place.arguments(self._case.command), self._log)
        if ended.code:
            faults.append(f"lost: the next run ends with {ended.code}: {ended.errors}")
        elif self._place.hidden():
            faults.append(f"left: {self._place.hidden()} after the next run")
        elif self._place.state() != "complete":
            faults.append("mixed: the next run ended well and led to something else")
        return faults

    def _whole_part_in_the_way(self, ended: Ended) -> Path | None:
        """One of several outputs that is whole, and that the next run says is in its way."""
        named = _IN_THE_WAY.search(ended.errors)
        if not named or not self._case.wanted:
            return None
        part = Path(named[1])
        wanted = self._case.wanted / part.relative_to(self._place.out)
        return part if content(part) == content(wanted) else None
