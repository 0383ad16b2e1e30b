"""The whole story on a model small enough to train while one waits (needs torch)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from patchc.errors import MissingExtraError
from patchc.progress import Progress, ignore_progress

if TYPE_CHECKING:
    from patchc.demo.story import DemoReport


def play(
    work: str | os.PathLike[str], *, seed: int = 0, progress: Progress = ignore_progress
) -> DemoReport:
    """Run :func:`patchc.demo.story.run_demo`.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    try:
        from patchc.demo.story import run_demo
    except ImportError as error:
        raise MissingExtraError(
            f"the demo needs {error.name}; install it with `pip install 'patchc[derive]'`"
        ) from error
    return run_demo(work, seed=seed, progress=progress)
