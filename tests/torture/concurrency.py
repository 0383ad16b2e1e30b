"""Proves that commands at the same time do each other no harm, and say what is the matter.

Two or three commands begin at random moments of one another, on one model in place or with one
output. Whichever ends well has led to what it promises, and the others say that somebody else is at
work. None blames the patch or the model, none hangs, and the model can be taken to both sides.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cases import IN_PLACE, Case, Place, write_cases
from forks import Ended, Fork, run_fork, warm
from tables import Matrix

POINTS = 100
FAULTS = ("silent", "blame", "lost", "left")

IN_USE = 21
ABOUT_OTHERS = re.compile(
    "is in use|in use by|while in use|by another program|has appeared meanwhile|already exists"
    "|is not empty|was cut off there|already holds|removed it meanwhile"
)
"""What a command says that found somebody else at work, or what he has left."""

_APPLY, _REVERT, _COPY = "apply --in-place", "revert --in-place", "apply -o"
_IN_PLACE = {
    "apply, apply": (_APPLY, _APPLY),
    "apply, revert": (_APPLY, _REVERT),
    "revert, revert": (_REVERT, _REVERT),
    "apply, verify": (_APPLY, "verify"),
    "apply, copy": (_APPLY, _COPY),
    "apply, apply, revert": (_APPLY, _APPLY, _REVERT),
    "apply, revert, verify": (_APPLY, _REVERT, "verify"),
}
_ONE_OUTPUT = {
    "copies to one output": ("apply -o", "apply -o"),
    "diffs to one output": ("diff", "diff"),
    "three builds to one output": ("build", "build", "build"),
}


@dataclass(frozen=True)
class _Meeting:
    """Commands that meet at one place, each as the name of its case."""

    place: Place
    names: tuple[str, ...]
    ended: list[Ended]

    def succeeded(self, name: str) -> bool:
        """Whether a command of that name ended well."""
        return any(one == name and end.code == 0 for one, end in self.ends())

    def ends(self) -> Iterator[tuple[str, Ended]]:
        """Each command's name, and how it ended."""
        return zip(self.names, self.ended, strict=True)


def run_matrix(folder: Path, matrix: Matrix) -> None:
    """Let commands meet at as many points as the matrix asks for."""
    cases = write_cases(folder)
    seconds = warm(cases.values(), folder)
    for row, names in (_IN_PLACE | _ONE_OUTPUT).items():
        if not matrix.asks_for(row):
            continue
        case = cases[names[0]]
        for number in matrix.numbers(matrix.points):
            rng = matrix.random(row, number)
            place = Place(folder / "place", case).fill()
            delays = [rng.uniform(0, seconds[name]) for name in names]
            delays[rng.randrange(len(names))] = 0.0
            commands = [_command(cases, name, case) for name in names]
            meeting = _Meeting(place, names, _meet(place, commands, delays, folder))
            judge = _judge_in_place if case.source else _judge_output
            codes = [end.code for end in meeting.ended]
            faults = [*_judge_all(meeting), *judge(meeting, folder / "log")]
            counts = Counter({"points": 1, "one was refused": IN_USE in codes})
            how = f"begun after {[f'{1000 * delay:.1f} ms' for delay in delays]}, codes {codes}"
            matrix.add(row, number, counts, faults, how, place.folder)


def _command(cases: dict[str, Case], name: str, place_of: Case) -> tuple[str, ...]:
    """The command, on the model in place where the first one is."""
    command, model = cases[name].command, str(cases[_APPLY].source)
    if place_of.source:
        return tuple("{model}" if part == model else part for part in command)
    return command


def _meet(
    place: Place, commands: list[tuple[str, ...]], delays: list[float], folder: Path
) -> list[Ended]:
    began, forks = time.monotonic(), {}
    for number in sorted(range(len(commands)), key=lambda one: delays[one]):
        time.sleep(max(0, began + delays[number] - time.monotonic()))
        forks[number] = Fork(place.arguments(commands[number]), folder / f"log-{number}")
    return [forks[number].wait() for number in range(len(commands))]


def _judge_all(meeting: _Meeting) -> Iterator[str]:
    for name, end in meeting.ends():
        if end.code is None:
            yield f"lost: {name} hangs"
        elif end.code and not _says_who_works_there(name, end):
            yield f"blame: {name} ends with {end.code}: {end.errors}{end.out}"


def _says_who_works_there(name: str, end: Ended) -> bool:
    """Whether a refusal is about the others; one in place has a lock, and need not meet them."""
    if name in IN_PLACE:
        return end.code == IN_USE
    return bool(ABOUT_OTHERS.search(end.errors))


def _judge_in_place(meeting: _Meeting, log: Path) -> Iterator[str]:
    """What is wrong with the model: it has to be whole, and one of the sides that were reached."""
    place, case = meeting.place, meeting.place.case
    ends = {_APPLY: case.wanted, _REVERT: case.source}
    if meeting.names[0] == _REVERT:
        ends = {_REVERT: case.wanted, _APPLY: case.source}
    reached = [ends[name] for name in ends if meeting.succeeded(name)] or [case.source]
    if place.out.exists() and place.state() != "complete":
        yield "silent: the copy is wrong"
    if place.out.exists() and not meeting.succeeded(_COPY):
        yield "left: the copy, beside an error"
    if not any(place.holds(model) for model in reached):
        yield f"silent: the model is not on a side that was reached; hidden: {place.hidden()}"
    elif place.hidden():
        yield f"left: {place.hidden()}"
    for here, command, wanted in (
        (place.twin(), case.back, case.source),
        (place, case.command, case.wanted),
    ):
        ended = run_fork(here.arguments(command), log)
        if ended.code or not here.holds(wanted):
            yield f"lost: then {command[0]} ends with {ended.code}: {ended.errors}"


def _judge_output(meeting: _Meeting, _log: Path) -> Iterator[str]:
    winners = [end for end in meeting.ended if end.code == 0]
    if len(winners) > 1:
        yield "silent: more than one says that it wrote the output"
    if not winners:
        yield "lost: none has written the output"
    elif meeting.place.state() != "complete":
        yield "silent: the output is not complete"
    if meeting.place.hidden():
        yield f"left: {meeting.place.hidden()}"
