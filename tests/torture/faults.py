"""Proves that no error of the operating system costs anything, at whatever call it comes.

A run without trouble tells which calls a command makes on its own files: its inputs, its output,
the model in place. Then one run for each of them and each error that the call may end with. There
are also partial reads and writes, and a disk that is full from some call on. It is checked that

- the command succeeds and the outcome is right, or it ends with a documented code and one message;
- with an error there is no output, and nothing hidden beside it; inputs are as they were;
- the next run, without trouble, succeeds; in place the other verb can take the model back too;
- what is no error is served: partial reads and writes, and file systems without chmod, locks,
  reserved space or sync.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import trials
from calls import Call, watch_calls
from cases import COPIES, IN_PLACE, VERIFY, write_cases
from forks import Ended, warm
from tables import Matrix
from trials import Trial

POINTS = 100_000  # more than there are
FAULTS = trials.FAULTS

_HALF, _TORN, _FULL = "half", "half, then EIO", "ENOSPC from then on"
_ERRORS = {
    "read": ("EIO", _HALF),
    "write": ("ENOSPC", "EIO", _HALF, _TORN, _FULL),
    "sync": ("EIO", "ENOSPC", "EINVAL"),
    "rename": ("EXDEV", "EBUSY", "EIO", "ENOSPC"),
    "remove": ("EIO", "EBUSY"),
    "resize": ("ENOSPC", "EIO", "EOPNOTSUPP", _FULL),
    "chmod": ("EPERM", "EIO"),
    "look": ("EIO",),
    "list": ("EIO", "EMFILE"),
    "open": ("EMFILE", "EIO", "EACCES"),
    "create": ("EMFILE", "EIO", "ENOSPC", "EROFS", _FULL),
    "close": ("EIO",),
    "mkdir": ("ENOSPC", "EIO", _FULL),
    "flock": ("ENOLCK", "EIO"),
    "inotify_add_watch": ("ENOSPC",),
}
_NO_ERRORS = {
    *(("read", _HALF), ("write", _HALF), ("chmod", "EPERM"), ("flock", "ENOLCK")),
    *(("sync", "EINVAL"), ("inotify_add_watch", "ENOSPC")),
}
_LOCK = ".patchc-lock"
"""A lock file stays if the system refuses to say whether somebody else holds it."""

_TAKE_SPACE = {"write", "resize", "create", "mkdir"}


@dataclass(frozen=True)
class Fault:
    """What goes wrong, at which call: the ``number``-th of a kind, on a file of this name."""

    kind: str
    number: int
    name: str
    error: str

    def __str__(self) -> str:
        return f"{self.error} of {self.kind} {self.number} ({self.name})"


def run_matrix(folder: Path, matrix: Matrix) -> None:
    """Let each call of each command fail, in each way; a sample of them if fewer are asked for."""
    cases = write_cases(folder, layers=3, rows=50)
    chosen = [cases[name] for name in (*IN_PLACE, *COPIES, VERIFY) if matrix.asks_for(name)]
    warm(chosen, folder)
    for case in chosen:
        trial = Trial(folder, case)
        faults = list(enumerate(_find_faults(trial, folder / "calls")))
        if matrix.point is not None:
            faults = [faults[matrix.point]]
        elif len(faults) > matrix.points:
            faults = matrix.random(case.name, 0).sample(faults, matrix.points)
        for number, fault in faults:
            met = folder / "met"
            met.unlink(missing_ok=True)
            ended = _run(trial, fault, met)
            if met.exists():
                no_error = (fault.kind, fault.error) in _NO_ERRORS
                stays = fault.kind == "remove" or fault.name.endswith(_LOCK)
                wrong = list(trial.judge(ended, no_error, stays, fault.kind == "chmod"))
                counts = Counter({"faults": 1, "exit 0": int(not ended.code)})
                matrix.add(case.name, number, counts, wrong, str(fault), trial.place.folder)


def _find_faults(trial: Trial, listed: Path) -> list[Fault]:
    """All that can go wrong, by a run without trouble."""
    listed.write_text("")
    descriptor, append = os.open(listed, os.O_WRONLY | os.O_APPEND), os.write

    def act(call: Call) -> object:
        append(descriptor, f"{call.kind}\t{call.number}\t{Path(call.path).name}\n".encode())
        return call.go()

    trial.run(lambda: watch_calls(trial.homes, act))
    os.close(descriptor)
    calls = [line.split("\t") for line in listed.read_text().splitlines()]
    return [
        Fault(kind, int(number), name, error)
        for kind, number, name in calls
        for error in _ERRORS[kind]
    ]


def _run(trial: Trial, fault: Fault, met: Path) -> Ended:
    """Run the command with something going wrong; the file ``met`` says that it came to that."""
    create, full = os.open, False

    def act(call: Call) -> object:
        nonlocal full
        if full and call.kind in _TAKE_SPACE:
            raise _error("ENOSPC", call)
        if (call.kind, call.number) != (fault.kind, fault.number):
            return call.go()
        os.close(create(met, os.O_CREAT | os.O_WRONLY))
        full = fault.error == _FULL
        return _fail(call, fault.error)

    return trial.run(lambda: watch_calls(trial.homes, act))


def _fail(call: Call, error: str) -> object:
    if error == _HALF:
        return call.half()
    if error == _TORN:
        call.half()
        raise _error("EIO", call)
    if call.kind == "close":
        call.go()
    raise _error(error.split()[0], call)


def _error(name: str, call: Call) -> OSError:
    code = getattr(errno, name)
    return OSError(code, os.strerror(code), *([call.path] if call.has_path else []))
