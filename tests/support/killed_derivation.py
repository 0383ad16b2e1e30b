"""Derives in processes that are killed one after another, until one comes to the end.

Usage: python killed_derivation.py FOLDER SEED; prints how many were killed. The folder holds the
base, and gets "out" and "scratch".
"""

from __future__ import annotations

import os
import random
import signal
import sys
import traceback
from pathlib import Path

from derivations import OPTIONS, STREAMED, derived, material_of
from interrupted import watched


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def live(folder: Path, last: int) -> None:
    """Derive, up to a moment."""
    material = material_of(folder, OPTIONS)
    with watched(last, kill) as moments:
        derived(
            folder / "base", material, folder / "out", OPTIONS, STREAMED, folder / "scratch",
            moments.progress,
        )  # fmt: skip


def main() -> None:
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    lengths = random.Random(seed)
    killed = 0
    while True:
        last = lengths.randrange(200, 900)
        child = os.fork()
        if not child:
            status = 1
            try:
                live(folder, last)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            print(killed)
            sys.exit(os.WEXITSTATUS(status))
        killed += 1


if __name__ == "__main__":
    main()
