"""Commands under torchrun: all ranks (processes of the run) work, and one prints."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import typer

from patchc.cli.entry import INTERRUPTED, SIGNALS

if TYPE_CHECKING:
    from patchc.progress import Progress

_LEFT = "nothing was left at the output; torchrun says which rank ended first"
_MOST_DIGITS = 7
_SHARED = ("build", "diff", "apply", "revert")


def refuse_ranks(command: str | None) -> None:
    """Refuse a command that works as one process if torchrun started several.

    Only rank 0 fails. torchrun stops all ranks when one fails, so a failure of another rank could
    stop rank 0 before it prints its message.

    Raises:
        UsageError: in rank 0; the others exit without an error.
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
    """Return whether torchrun started this command as one of several ranks.

    Only ``-m patchc`` counts: a ``patchc`` that is started inside a training run works alone.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    started = spec is not None and spec.name == "patchc.__main__"
    size = os.environ.get("WORLD_SIZE", "1")
    return started and "TORCHELASTIC_RUN_ID" in os.environ and _is_several(size)


def _is_several(size: str) -> bool:
    return size.isdecimal() and len(size) < _MOST_DIGITS and int(size) > 1


@contextmanager
def shared_work() -> Iterator[Progress]:
    """Share a command's work among the ranks, and give a callback that shows its progress.

    Without torchrun there is one rank. Under torchrun, ranks other than the first exit at the end
    of the block, and one rank reports an error.
    """
    from patchc.cli.showing_progress import showing_progress

    if _launched():
        with _ranks() as progress:
            yield progress
        if os.environ["RANK"] != "0":
            raise typer.Exit
        return
    with showing_progress() as progress:
        yield progress


@contextmanager
def _ranks() -> Iterator[Progress]:
    from patchc.cli.showing_progress import showing_progress
    from patchc.errors import PatchcError
    from patchc.progress import ignore_progress
    from patchc.runtime.ranks import sharing
    from patchc.runtime.torchrun import join

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    with join() as ranks, sharing(ranks):
        try:
            if ranks.rank:
                yield ignore_progress
            else:
                with showing_progress() as progress:
                    yield progress
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
    """Stop as at an interrupt, unless this rank handles an exception already.

    That is the usual case: torchrun stops all ranks as soon as the first has ended.
    """
    if sys.exc_info()[0] is None:
        raise KeyboardInterrupt
