"""The demo: from requests to a tested patch, on a model that trains in a minute (needs torch)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from patchc.errors import import_errors
from patchc.progress import Progress, ignore_progress
from patchc.recipe import checks

if TYPE_CHECKING:
    from patchc.demo.story import DemoReport, DemoStart


def play(
    work: str | os.PathLike[str], *, seed: int = 0, progress: Progress = ignore_progress
) -> DemoReport:
    """Run :func:`patchc.demo.story.run_demo`.

    Raises:
        UsageError: ``seed`` is out of range.
        MissingExtraError: torch or transformers is not installed.
    """
    checks.seed("seed", seed)
    with import_errors("the demo", "derive"):
        from patchc.demo.story import run_demo
    return run_demo(work, seed=seed, progress=progress)


def prepare(
    work: str | os.PathLike[str], *, seed: int = 0, progress: Progress = ignore_progress
) -> DemoStart:
    """Run :func:`patchc.demo.story.prepare_demo`.

    Raises:
        UsageError: ``seed`` is out of range.
        MissingExtraError: torch or transformers is not installed.
    """
    checks.seed("seed", seed)
    with import_errors("the demo", "derive"):
        from patchc.demo.story import prepare_demo
    return prepare_demo(work, seed=seed, progress=progress)
