"""Compile the loops that commands need, before anybody waits for them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from patchc.errors import OutputError, UsageError
from patchc.progress import Progress, ProgressEvent, ignore_progress
from patchc.verbs.warm_up_runs import RUNS

_NEEDS: dict[str, tuple[str, ...]] = {
    "build": ("build", "merge"),
    "diff": ("diff",),
    **dict.fromkeys(("apply", "revert"), ("diff", "build", "apply")),
    **dict.fromkeys(("verify", "status"), ("diff", "build", "verify")),
    "fold": ("diff", "fold"),
    "derive": ("build",),
    "fit": ("build", "merge"),
    "evaluate": ("diff", "build", "apply"),
    **dict.fromkeys(("fix", "sweep", "demo"), ("diff", "build", "merge", "apply", "verify")),
    **dict.fromkeys(("inspect", "annotate"), ()),
}
"""Commands, and the runs that compile what each needs."""


@dataclass(frozen=True)
class WarmUpReport:
    """What :func:`warm_up` did.

    Attributes:
        commands: that start without a wait from now on.
        compiled: loops that were compiled, for each combination of argument types.
        found: loops whose code was there already.
        seconds: that all of it took.
        folder: where the code is kept.
    """

    commands: tuple[str, ...]
    compiled: int
    found: int
    seconds: float
    folder: str


def warm_up(commands: Iterable[str] = (), *, progress: Progress = ignore_progress) -> WarmUpReport:
    """Compile the loops that commands need, and keep the code for this and other users' runs.

    The commands run on tiny models in a temporary folder, in bf16, f16 and fp32, with exact and
    additive patches and both codecs. What reads patches needs some to read, so it warms up what
    writes them. Where all is compiled already, nothing is left to do.

    Args:
        commands: names of commands, such as "apply"; none means all.
        progress: called with the runs done.

    Raises:
        UsageError: there is no such command.
        OutputError: the code cannot be kept; names the folder, and what to do.
        StorageError: the temporary folder cannot be written.
    """
    from patchc import loop_cache

    names = tuple(dict.fromkeys(commands)) or tuple(_NEEDS)
    for name in names:
        if name not in _NEEDS:
            raise UsageError(f"there is no command {name!r:.80}; name one of {', '.join(_NEEDS)}")
    needed = {run for name in names for run in _NEEDS[name]}
    runs = [run for run in RUNS if run in needed]
    if runs and (told := loop_cache.unwritable()):
        raise OutputError(told)
    before, start = loop_cache.Counts(**vars(loop_cache.counts)), time.perf_counter()
    with TemporaryDirectory(prefix="patchc-warm-up-") as folder:
        for done, run in enumerate(runs):
            progress(ProgressEvent("warm up", done, len(runs), "runs", run))
            RUNS[run](Path(folder))
    progress(ProgressEvent("warm up", len(runs), len(runs), "runs"))
    if told := loop_cache.not_kept():
        raise OutputError(told)
    return WarmUpReport(
        names,
        loop_cache.counts.compiled - before.compiled,
        loop_cache.counts.found - before.found,
        time.perf_counter() - start,
        loop_cache.counts.folder,
    )
