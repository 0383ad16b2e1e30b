"""A bash that runs the commands of a page one after the other, as a reader would."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from pathlib import Path

_SECONDS = 300.0
_END = re.compile(rb"\x1e(\d+)\x1e\n")
_TELL = "__tell() { printf '\\036%d\\036\\n' $1; }\n"


class Shell:
    """Keeps its folder and variables from one command to the next.

    Args:
        folder: where it starts.
        programs: folders that come first on the PATH.
    """

    def __init__(self, folder: Path, programs: list[Path]) -> None:
        path = os.pathsep.join([*map(str, programs), os.environ["PATH"]])
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=kept | {"PATH": path, "COLUMNS": "80", "PS1": "", "OMP_NUM_THREADS": "1"},
            bufsize=0,
        )
        self._write(_TELL)

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_error: object) -> None:
        self._bash.kill()
        self._bash.communicate()

    def run(self, commands: str, *, stops: bool = False) -> tuple[int, str]:
        """Run commands: their exit code, and standard output and error together.

        Args:
            stops: end at the first command that fails.
        """
        inside = f"set -e; trap '__tell $?' EXIT\n{commands}\nset +e" if stops else commands
        script = f"{{\n{inside}\n}} </dev/null\n__code=$?; trap - EXIT; __tell $__code\n"
        self._write(f"{script}(exit $__code)\n")
        return self._read()

    def _write(self, script: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(script.encode())

    def _read(self) -> tuple[int, str]:
        assert self._bash.stdout is not None
        content, until = b"", time.monotonic() + _SECONDS
        while not (end := _END.search(content)):
            left = until - time.monotonic()
            ready, _, _ = select.select([self._bash.stdout], [], [], max(0.0, left))
            more = self._bash.stdout.read(1 << 16) if ready else b""
            if not more:
                raise AssertionError(f"no end after {_SECONDS:.0f} s: {content.decode()}")
            content += more
        return int(end[1]), content[: end.start()].decode()
