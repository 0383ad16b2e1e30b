"""Commands under torchrun: all ranks work, and one of them talks."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from patchc.progress import Progress
    from patchc.runtime.ranks import Ranks

INTERRUPTED = 130
_LEFT = "nothing was left at the output; torchrun says which rank ended first"
_SHARED = ("build", "diff", "apply", "revert")


def refuse_ranks(command: str | None) -> None:
    """Refuse a command that works alone if torchrun has started several of it.

    The other ranks leave in peace: torchrun stops all of them as soon as one fails, which would
    take the word from rank 0. Its failure alone fails the whole.

    Raises:
        UsageError: in rank 0; the others exit.
    """
    from patchc.errors import UsageError

    if command in _SHARED or not _launched():
        return
    if os.environ.get("RANK") != "0":
        raise typer.Exit
    raise UsageError(
        f"{command} works as one process; under torchrun there are {', '.join(_SHARED)}. Run it "
        "without torchrun"
    )


def _launched() -> bool:
    """Whether torchrun started this very command as one of several ranks.

    Only ``-m patchc`` counts: a ``patchc`` that a rank of some training run starts works alone.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    started = spec is not None and spec.name == "patchc.__main__"
    size = os.environ.get("WORLD_SIZE", "1")
    return started and "TORCHELASTIC_RUN_ID" in os.environ and size.isdigit() and int(size) > 1


@contextmanager
def shared_work() -> Iterator[tuple[Ranks, Progress]]:
    """The ranks that share a command's work, and how its progress is shown.

    Without torchrun there is one. Under it, ranks other than the first end with the block, and of
    an error one rank tells.
    """
    from patchc.cli.output import progress_bar

    if _launched():
        with _ranks() as found:
            yield found
        if found[0].rank:
            raise typer.Exit
        return
    from patchc.runtime.ranks import ALONE

    with progress_bar() as progress:
        yield ALONE, progress


@contextmanager
def _ranks() -> Iterator[tuple[Ranks, Progress]]:
    from patchc.cli.output import progress_bar
    from patchc.errors import PatchcError
    from patchc.progress import ignore_progress
    from patchc.runtime.torchrun import join

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    with join() as ranks:
        try:
            if ranks.rank:
                yield ranks, ignore_progress
            else:
                with progress_bar() as progress:
                    yield ranks, progress
        except KeyboardInterrupt as error:
            if not ranks.speaks():
                raise typer.Exit(INTERRUPTED) from error
            raise KeyboardInterrupt(_LEFT) from error
        except BaseException as error:
            if not ranks.speaks():
                code = error.exit_code if isinstance(error, PatchcError) else 1
                raise typer.Exit(code) from error
            raise


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """Stop as at an interrupt, unless this rank is on its way out already and tidies up.

    torchrun stops all ranks as soon as the first has ended, so that this is the usual case.
    """
    if sys.exc_info()[0] is None:
        raise KeyboardInterrupt
