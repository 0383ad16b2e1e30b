"""Runs commands as real processes that begin within milliseconds: forks of one that is warm.

A fork has imported everything and loaded every compiled loop. It runs the command line as the
installed program does, with files for standard output and error, and has its own exit code.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cases import Case, Place

from patchc.cli.entry import main

HANGS = 300
"""Seconds after which a command is taken to hang; the slowest takes some."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; below 0 the signal that ended it; None if it hung and was killed.
        out, errors: what it printed.
        seconds: how long it ran.
    """

    code: int | None
    out: str
    errors: str
    seconds: float


class Fork:
    """A command that runs in a forked process.

    Args:
        arguments: of the program.
        log: path of the files that get what it prints, without suffix.
        before: called in the process before the command.
    """

    def __init__(
        self, arguments: list[str], log: Path, before: Callable[[], None] | None = None
    ) -> None:
        self._log = log
        self.began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            _run(arguments, log, before)

    def kill(self) -> None:
        """End the process at once, as a machine's memory guard would."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> Ended:
        """Wait until it has ended, however it does."""
        descriptor = os.pidfd_open(self.pid)
        try:
            ended, _, _ = select.select([descriptor], [], [], HANGS)
        finally:
            os.close(descriptor)
        if not ended:
            self.kill()
        _, status = os.waitpid(self.pid, 0)
        out, errors = (
            self._log.with_suffix(suffix).read_text(errors="replace") for suffix in (".out", ".err")
        )
        code = os.waitstatus_to_exitcode(status) if ended else None
        return Ended(code, out, errors, time.monotonic() - self.began)


def run_fork(arguments: list[str], log: Path, before: Callable[[], None] | None = None) -> Ended:
    """Run a command in a fork, to its end."""
    return Fork(arguments, log, before).wait()


def warm(cases: Iterable[Case], folder: Path) -> dict[str, float]:
    """Load what the cases need into this process, and measure each in a fork: seconds by name."""
    from command_line import run

    seconds = {}
    for case in cases:
        place = Place(folder / "warm", case).fill()
        run(*place.arguments(case.command))
        place.fill()
        gc.collect()
        if "torch" not in sys.modules:  # it objects to freezing when it ends
            gc.freeze()
        ended = run_fork(place.arguments(case.command), folder / "warm-log")
        if ended.code:
            raise RuntimeError(f"{case.name} failed without any trouble: {ended.errors}")
        seconds[case.name] = ended.seconds
    return seconds


def _run(arguments: list[str], log: Path, before: Callable[[], None] | None) -> NoReturn:
    code = 70
    try:
        for number, suffix in ((1, ".out"), (2, ".err")):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            descriptor = os.open(log.with_suffix(suffix), flags, 0o600)
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.argv = ["patchc", *arguments]
        if before:
            before()
        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
