"""Proves the same as the matrix of faults, with errors that the system itself gives: by strace.

Here Python and the C library meet the errors, not only patchc. Interrupted calls (EINTR) are given
to every second call of a kind, in two runs, so that each call meets one; a call that is tried again
has to serve. Other errors come at a sample of the calls. Without strace there is nothing to run.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trials
from cases import COPIES, IN_PLACE, VERIFY, Case, write_cases
from forks import Ended, Fork, warm
from tables import Matrix
from trials import Trial

POINTS = 60
FAULTS = trials.FAULTS

_TRIED_AGAIN = (
    *("read", "pread64", "preadv", "write", "pwrite64", "fsync", "fdatasync", "ftruncate"),
    *("fallocate", "flock", "renameat2"),
)
"""System calls that are tried again if they are interrupted, as strace names them."""

_INTERRUPTED = (*_TRIED_AGAIN, "openat", "statfs")
"""Those that can be interrupted; Python does not try again to open a folder."""

_ERRORS = {
    **dict.fromkeys(("read", "pread64", "preadv", "getdents64", "newfstatat"), ("EIO",)),
    **dict.fromkeys(("write", "pwrite64", "fsync", "fdatasync", "fallocate"), ("ENOSPC", "EIO")),
    **dict.fromkeys(("rename", "renameat2"), ("EXDEV", "EBUSY", "EIO", "EINTR", "ENOSYS")),
    **dict.fromkeys(("unlink", "mkdir", "rmdir", "ftruncate"), ("EIO", "ENOSPC")),
    **dict.fromkeys(("chmod", "fchmod"), ("EPERM", "EIO")),
    "openat": ("EMFILE", "EIO", "ENOSPC"),
    "inotify_init1": ("EMFILE",),
}
_PR_SET_PTRACER, _ANY = 0x59616D61, -1


def run_matrix(folder: Path, matrix: Matrix) -> None:
    """Let system calls of each command be interrupted, and some of them fail."""
    if not shutil.which("strace"):
        print("system_faults: strace is not on PATH; nothing was run")
        return
    cases = write_cases(folder, layers=3, rows=50)
    chosen = [cases[name] for name in (*IN_PLACE, *COPIES, VERIFY) if matrix.asks_for(name)]
    warm(chosen, folder)
    for case in chosen:
        trial = Trial(folder, case)
        for number in matrix.numbers(matrix.points):
            name, error, when = _fault(matrix, case, number)
            ended, met = _run(trial, folder, f"inject={name}:error={error}:when={when}")
            served = error == "EINTR" and name in _TRIED_AGAIN
            wrong = list(trial.judge(ended, served, name in ("unlink", "rmdir"))) if met else []
            counts = Counter({"runs": bool(met), "faults": met, "exit 0": met and not ended.code})
            how = f"{error} of {name}, when {when}"
            matrix.add(case.name, number, counts, wrong, how, trial.place.folder)


def _fault(matrix: Matrix, case: Case, number: int) -> tuple[str, str, str]:
    """What a point injects: first each call interrupted, twice; then errors that are drawn."""
    if number < 2 * len(_INTERRUPTED):
        return _INTERRUPTED[number // 2], "EINTR", f"{1 + number % 2}+2"
    rng = matrix.random(case.name, number)
    name = rng.choice(list(_ERRORS))
    return name, rng.choice(_ERRORS[name]), str(min(1 + int(rng.expovariate(0.2)), 100))


def _run(trial: Trial, folder: Path, inject: str) -> tuple[Ended, int]:
    """Run a command under strace: how it ended, and how many calls met the error."""
    trace = folder / "trace"
    command = [*trial.place.fill().arguments(trial.place.case.command), "--threads", "1"]
    fork = Fork(command, folder / "log", _stop_until_traced)
    os.waitpid(fork.pid, os.WUNTRACED)
    with _traced(fork.pid, trace, inject):
        os.kill(fork.pid, signal.SIGCONT)
        ended = fork.wait()
    return ended, len(re.findall(r"\(INJECTED\)", trace.read_text(errors="replace")))


def _stop_until_traced() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)


@contextmanager
def _traced(pid: int, trace: Path, inject: str) -> Iterator[None]:
    name = re.split("[=:]", inject)[1]
    command = ["strace", "-f", "-e", f"trace={name}", "-e", inject, "-o", trace, "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr
        said = tracer.stderr.readline()
        if "attached" not in said:
            os.kill(pid, signal.SIGKILL)
            raise RuntimeError(f"strace: {said}")
        yield
