"""The processes that share the work of a verb: ranks, each with a contiguous run of the tensors.

All ranks run the same code and meet where the outcome of one depends on another. Where they meet,
each hands in what it found, or its error: then all raise the error of the lowest rank, which is the
first in the order of the tensors, as one process would have. A rank that leaves on its own is
missed at the next meeting.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from patchc.errors import PatchcError, RankError
from patchc.files import storage_errors

Item = TypeVar("Item")


class Link(Protocol):
    """Carries bytes between the ranks; every call raises RankError where a rank has left."""

    @property
    def rank(self) -> int:
        """This process's number, from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    @property
    def neighbours(self) -> int:
        """How many of them run on this machine."""

    def exchange(self, data: bytes) -> list[bytes]:
        """Hand in bytes and get those of every rank, in their order; called by all of them."""

    def send(self, data: bytes) -> None:
        """Hand bytes to rank 0, which has to call :meth:`receive`."""

    def receive(self, rank: int) -> bytes:
        """The next bytes that a rank sends."""


class _NoLink:
    rank, size, neighbours = 0, 1, 1

    def exchange(self, data: bytes) -> list[bytes]:
        return [data]

    def send(self, data: bytes) -> None:
        raise NotImplementedError

    def receive(self, rank: int) -> bytes:
        raise NotImplementedError


class Ranks:
    """The ranks as one of them sees them; without a link, one process alone.

    Attributes:
        rank, size: this one's number, and how many there are.
        neighbours: how many run on this machine.
        agreed: whether the error that is being raised is raised in every rank.
    """

    def __init__(self, link: Link | None = None) -> None:
        self._link: Link = link or _NoLink()
        self.rank, self.size = self._link.rank, self._link.size
        self.neighbours = self._link.neighbours
        self.agreed = False

    def gather(self, place: str, work: Callable[[], bytes] = bytes) -> list[bytes]:
        """Do this rank's work and get every rank's outcome, in the order of the ranks.

        Args:
            place: where in the run this is, the same in every rank.
            work: its PatchcError, if it raises one, is raised in every rank.

        Raises:
            PatchcError: the one of the lowest rank that has one.
            RankError: a rank has left, or is at another place because it sees other inputs.
        """
        if self.size == 1:
            return [work()]
        error, outcome = None, b""
        try:
            outcome = work()
        except PatchcError as raised:
            error = raised
        stated = None if error is None else [type(error).__name__, str(error)]
        answers = self._link.exchange(json.dumps([place, stated]).encode() + b"\n" + outcome)
        heads, outcomes = [], []
        for answer in answers:
            head, _, rest = answer.partition(b"\n")
            heads.append(json.loads(head))
            outcomes.append(rest)
        if any(head[0] != place for head in heads):
            places = ", ".join(f"rank {rank} at {head[0]!r}" for rank, head in enumerate(heads))
            raise RankError(
                f"the ranks went apart ({places}); they must run one command, on one file system "
                "or on equal copies of the inputs"
            )
        for rank, (_, fault) in enumerate(heads):
            if fault:
                self.agreed = True
                raise error if error and rank == self.rank else _error(*fault)
        return outcomes

    def agree(self, place: str, facts: bytes) -> None:
        """Check that all ranks have the same facts.

        Raises:
            RankError: a rank has others.
        """
        others = [n for n, each in enumerate(self.gather(place, lambda: facts)) if each != facts]
        if others:
            raise RankError(
                f"rank {others[0]} has other inputs than rank {self.rank} ({place}); the ranks "
                "must run one command, on one file system or on equal copies of the inputs"
            )

    def sum(self, place: str, work: Callable[[], NDArray[np.int64]]) -> NDArray[np.int64]:
        """The sum over all ranks of an array of one shape."""
        parts = self.gather(place, lambda: work().tobytes())
        return sum((np.frombuffer(part, np.int64) for part in parts), np.zeros(1, np.int64))

    def before(self, place: str, count: int) -> int:
        """The sum of the counts of the ranks before this one."""
        counts = self.gather(place, lambda: str(count).encode())
        return sum(map(int, counts[: self.rank]))

    def send(self, data: bytes) -> None:
        """Hand bytes to rank 0, which has to call :meth:`receive`."""
        self._link.send(data)

    def receive(self, rank: int) -> bytes:
        """The next bytes that a rank sends."""
        return self._link.receive(rank)


ALONE = Ranks()


def deal(weights: Sequence[int], size: int) -> list[range]:
    """Cut a row of items into ``size`` contiguous runs, some perhaps empty.

    The weight of a run differs from the mean by no more than the heaviest item.
    """
    ends = list(accumulate(weights))
    total = ends[-1] if ends else 0
    homes = [
        min((2 * end - weight) * size // (2 * total), size - 1) if total else 0
        for end, weight in zip(ends, weights, strict=True)
    ]
    firsts = np.searchsorted(np.array(homes, np.int64), np.arange(size + 1)).tolist()
    return [range(first, end) for first, end in pairwise(firsts)]


@contextmanager
def staged_by_first(
    ranks: Ranks, stage: Callable[[Path], AbstractContextManager[Path]], out: Path
) -> Iterator[Path]:
    """As ``stage``, which rank 0 does for all: its commit waits until every rank has come through.

    The others get the staged path, and remove it if they fail, lest rank 0 cannot.

    Raises:
        StorageError: the operating system refused.
        RankError: a rank has left; then there is no output.
    """
    if ranks.rank:
        staging = Path(os.fsdecode(ranks.gather("staging")[0]))
        try:
            with storage_errors(out, "write"):
                yield staging
            ranks.gather("written")
            ranks.gather("commit")
        except BaseException:
            _remove(staging)
            raise
        return
    with stage(out) as staging:
        ranks.gather("staging", lambda: os.fsencode(staging.absolute()))
        yield staging
        ranks.gather("written")
    with suppress(RankError):  # the output stands, whoever has left by now
        ranks.gather("commit")


def _remove(staging: Path) -> None:
    """Rename it first: should rank 0 be committing, one of the two renames fails as a whole."""
    aside = staging.with_suffix(".left.partial")
    with suppress(OSError):
        staging.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
        aside.unlink(missing_ok=True)


def _error(name: str, message: str) -> PatchcError:
    """An error as another rank has stated it."""
    kinds = [PatchcError]
    for kind in kinds:
        if kind.__name__ == name:
            return kind(message)
        kinds.extend(kind.__subclasses__())
    return PatchcError(message)
