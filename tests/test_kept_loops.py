"""Machine code kept from earlier runs, and sources that have changed since."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from patchc.loop_cache import forget_outdated, sources_digest

COUNT = """
import numpy as np
from patchc.kernels.bitmask import count

assert count(np.full(3, 5, np.uint32)) == 6
print(sum(count.stats.cache_hits.values()), sum(count.stats.cache_misses.values()))
"""


def run_loop(kept: Path) -> str:
    """Call a loop in a process of its own: how often it was found kept, and how often not."""
    command = [sys.executable, "-c", COUNT]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(kept)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_loop_is_kept_until_a_source_changes(tmp_path: Path) -> None:
    assert run_loop(tmp_path) == "0 1"
    assert run_loop(tmp_path) == "1 0"
    stamps = list(tmp_path.rglob("patchc-sources"))
    assert [stamp.read_text() for stamp in stamps] == [sources_digest()]
    stamps[0].write_text("those of another version")
    assert run_loop(tmp_path) == "0 1"
    assert run_loop(tmp_path) == "1 0"


def test_what_is_kept_without_a_stamp_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "loop.nbi").write_bytes(b"an index")
    forget_outdated(tmp_path)
    assert not (tmp_path / "loop.nbi").exists()
    (tmp_path / "loop.nbi").write_bytes(b"an index")
    forget_outdated(tmp_path)
    assert (tmp_path / "loop.nbi").exists()
    (tmp_path / "patchc-sources").write_bytes(b"\xff\xfe damaged")
    forget_outdated(tmp_path)
    assert not (tmp_path / "loop.nbi").exists()
