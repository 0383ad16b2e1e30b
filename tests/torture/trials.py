"""One run of a command in which the operating system reports an error, and what is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from cases import Case, Place, stamps
from forks import Ended, run_fork

from patchc import errors
from patchc.renaming import remove

FAULTS = ("lost", "mixed", "beside", "left", "traceback", "unserved")
"""What can be wrong with how a run with an error ends."""

_CODES = {0, *(one.exit_code for one in vars(errors).values() if hasattr(one, "exit_code"))}


class Trial:
    """Runs of one command with errors.

    Attributes:
        place: where the command runs; filled anew for each run.
        homes: the places of its own files.
    """

    def __init__(self, folder: Path, case: Case) -> None:
        self.place = Place(folder / "place", case)
        self.homes = (self.place.folder, *case.inputs)
        self._case = case
        self._log = folder / "log"
        self._before = stamps(case.inputs)

    def run(self, before: Callable[[], None] | None = None) -> Ended:
        """Run the command with one thread; ``before`` is called in its process."""
        command = [*self.place.fill().arguments(self._case.command), "--threads", "1"]
        return run_fork(command, self._log, before)

    def judge(
        self, ended: Ended, must_serve: bool, may_leave: bool, any_mode: bool = False
    ) -> Iterator[str]:
        """What is wrong with how a run ended and with what it left; changes the place.

        Args:
            ended: the run.
            must_serve: what it met is no error.
            may_leave: it could not remove what it left.
            any_mode: it could not set permission bits.
        """
        if ended.code is None:
            yield "lost: it hangs"
        elif ended.code not in _CODES or "Traceback" in ended.errors:
            yield f"traceback: code {ended.code}: {ended.errors}"
        elif ended.code and ended.errors.count("patchc: error: ") != 1:
            yield f"traceback: not one message: {ended.errors}"
        if ended.code and must_serve:
            yield f"unserved: {ended.errors}"
        if stamps(self._case.inputs) != self._before:
            yield "lost: an input was changed"
        if self._case.source:
            yield from self._judge_in_place(ended)
        elif self._case.wanted:
            yield from self._judge_output(ended, may_leave, any_mode)

    def _judge_in_place(self, ended: Ended) -> Iterator[str]:
        if not ended.code and not self.place.holds(self._case.wanted):
            yield f"mixed: it ended well and led to something else; hidden: {self.place.hidden()}"
        for place, command, wanted in (
            (self.place.twin(), self._case.back, self._case.source),
            (self.place, self._case.command, self._case.wanted),
        ):
            again = run_fork(place.arguments(command), self._log)
            if again.code or not place.holds(wanted):
                yield f"lost: then {command[0]} ends with {again.code}: {again.errors}"

    def _judge_output(self, ended: Ended, may_leave: bool, any_mode: bool) -> Iterator[str]:
        state = self.place.state(any_mode)
        if ended.code and state != "absent":
            yield f"beside: the output is {state}, with code {ended.code}: {ended.errors}"
        if not ended.code and state != "complete":
            yield f"mixed: it ended well and the output is {state}"
        if self.place.hidden() and not may_leave:
            yield f"left: {self.place.hidden()}, with code {ended.code}: {ended.errors}"
        remove(self.place.out)
        again = run_fork(self.place.arguments(self._case.command), self._log)
        if again.code or self.place.state() != "complete":
            yield f"lost: the next run ends with {again.code}: {again.errors}"
        elif self.place.hidden():
            yield f"left: {self.place.hidden()} after the next run"
