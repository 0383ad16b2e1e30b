"""Commands on a terminal of a given width."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

_SCRIPT = """
import contextlib, json, sys
sys.path[:0] = [sys.argv[1]]
from patchc.cli.main import app
for step in json.loads(sys.argv[2]):
    with contextlib.suppress(SystemExit):
        if isinstance(step, str):
            import shown_reports
            getattr(shown_reports, step)()
        else:
            app(step, prog_name="patchc")
    print("\\x1f", flush=True)
"""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

Step = str | Sequence[object]
"""A command's arguments, or the name of a report of :mod:`shown_reports`."""


def screens(columns: int, steps: Sequence[Step], errors: bool = False) -> list[str]:
    """What each step prints on a terminal; with ``errors``, standard error goes there too."""
    wanted = json.dumps([one if isinstance(one, str) else [*map(str, one)] for one in steps])
    text = printed(columns, _SCRIPT, str(Path(__file__).parent), wanted, errors=errors)
    shown = text.split("\x1f\n")
    assert len(shown) == len(steps) + 1, text
    return shown[:-1]


def printed(columns: int, script: str, *arguments: str, errors: bool = True) -> str:
    """What a Python script prints on a terminal, without movements of the cursor and colours."""
    here, there = os.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: one for name, one in os.environ.items() if name not in _SIZES}
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=there,
        stderr=there if errors else subprocess.DEVNULL,
        env=environment | {"TERM": "xterm"},
    ):
        os.close(there)
        text = _read(here)
    os.close(here)
    return _CONTROL.sub("", text.decode()).replace("\r\n", "\n")


_SIZES = ("COLUMNS", "LINES", "TERMINAL_WIDTH", "FORCE_COLOR", "GITHUB_ACTIONS")


def _read(descriptor: int) -> bytes:
    found = b""
    while True:
        try:
            part = os.read(descriptor, 1 << 16)
        except OSError:  # the other end is closed
            return found
        if not part:
            return found
        found += part
