"""Runs a command as the only child of a tiny process: peak resident memory, wall and CPU time.

    python -I -S benchmarks/launch.py COMMAND [ARGUMENT …]

The last line on standard output is a JSON object: ``peak_bytes``, ``seconds``, ``cpu_seconds``,
``exit_code``. The kernel carries the parent's resident size over into a child, so the parent has to
be small: this file imports nothing heavy, and :func:`measure` starts it as a process of its own.
"""

from __future__ import annotations

import os
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120

_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"  # set, it has a checkout compiled at every start: 0.07 s


class Measured:
    """What a command took; ``cpu_seconds`` count user and system time of all its threads."""

    def __init__(self, peak_bytes: int, seconds: float, cpu_seconds: float) -> None:
        self.peak_bytes = peak_bytes
        self.seconds = seconds
        self.cpu_seconds = cpu_seconds


def measure(command: list[str]) -> Measured:
    """Run a command through this launcher and return what it took.

    Raises:
        SystemExit: the command failed; its own messages are on standard error.
    """
    import json
    import subprocess

    launcher = [sys.executable, "-I", "-S", __file__, *command]
    finished = subprocess.run(launcher, stdout=subprocess.PIPE, text=True, check=False)
    result = json.loads(finished.stdout.splitlines()[-1])
    exit_code = result.pop("exit_code")
    if exit_code:
        raise SystemExit(f"{' '.join(command)} failed with exit code {exit_code}")
    return Measured(**result)


def patchc(*arguments: str | os.PathLike[str]) -> list[str]:
    """The command line of a patchc command, in this environment."""
    return [sys.executable, "-P", "-m", "patchc", *(os.fspath(argument) for argument in arguments)]


def main() -> None:
    environment = {name: value for name, value in os.environ.items() if name != _NO_BYTECODE}
    start = time.perf_counter()
    child = os.posix_spawnp(sys.argv[1], sys.argv[1:], environment)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    exit_code = os.waitstatus_to_exitcode(status)
    cpu = usage.ru_utime + usage.ru_stime
    print(
        f'\n{{"peak_bytes": {usage.ru_maxrss * 1024}, "seconds": {seconds:.4f}, '
        f'"cpu_seconds": {cpu:.4f}, "exit_code": {exit_code}}}'
    )


if __name__ == "__main__":
    main()
