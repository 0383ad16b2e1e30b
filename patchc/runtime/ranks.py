"""The processes that share the work of a verb: ranks, each with a contiguous run of the tensors.

All ranks run the same code. Where one needs the outcome of another, they gather: each sends its
outcome or its error to all. Then all raise the error of the lowest rank. It is the first in the
order of the tensors, so a single process would have raised it too. If a rank has left, the others
notice at the next gather.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from contextvars import ContextVar
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from patchc.errors import PatchcError, RankError
from patchc.output_place import reserved_path
from patchc.reserved import reserved
from patchc.system_errors import storage_errors

Item = TypeVar("Item")


class Transport(Protocol):
    """Carries bytes between the ranks; every call raises RankError if a rank has left."""

    @property
    def rank(self) -> int:
        """This process's number, from 0."""

    @property
    def size(self) -> int:
        """Number of ranks."""

    @property
    def neighbours(self) -> int:
        """Number of ranks on this machine."""

    def exchange(self, data: bytes) -> list[bytes]:
        """Send bytes to all ranks and get those of every rank, in order; called by all ranks."""

    def send(self, data: bytes) -> None:
        """Hand bytes to rank 0, which has to call :meth:`receive`."""

    def receive(self, rank: int) -> bytes:
        """The next bytes that a rank sends."""


class _NoTransport:
    rank, size, neighbours = 0, 1, 1

    def exchange(self, data: bytes) -> list[bytes]:
        return [data]

    def send(self, data: bytes) -> None:
        raise NotImplementedError

    def receive(self, rank: int) -> bytes:
        raise NotImplementedError


class Ranks:
    """The ranks as one of them sees them; without a transport, one process alone.

    Attributes:
        rank, size: this process's number, and the number of ranks.
        neighbours: number of ranks on this machine.
        agreed: whether every rank raises the current error.
        send, receive: as :class:`Transport` has them.
    """

    def __init__(self, transport: Transport | None = None) -> None:
        self._transport: Transport = transport or _NoTransport()
        self.rank, self.size = self._transport.rank, self._transport.size
        self.neighbours = self._transport.neighbours
        self.agreed = False
        self.send, self.receive = self._transport.send, self._transport.receive

    def gather(self, place: str, work: Callable[[], bytes] = bytes) -> list[bytes]:
        """Do this rank's work and get every rank's outcome, in the order of the ranks.

        Args:
            place: names this point of the run; must be the same in every rank.
            work: if it raises a PatchcError, every rank raises it.

        Raises:
            PatchcError: the error of the lowest rank that has one.
            RankError: a rank has left, or is at another place because it has other inputs.
        """
        if self.size == 1:
            return [work()]
        error, outcome = None, b""
        try:
            outcome = work()
        except PatchcError as raised:
            error = raised
        stated = None if error is None else [type(error).__name__, str(error)]
        answers = self._transport.exchange(json.dumps([place, stated]).encode() + b"\n" + outcome)
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
            RankError: a rank has other facts.
        """
        others = [n for n, each in enumerate(self.gather(place, lambda: facts)) if each != facts]
        if others:
            raise RankError(
                f"rank {others[0]} has other inputs than rank {self.rank} ({place}); the ranks "
                "must run one command, on one file system or on equal copies of the inputs"
            )

    def sum(self, place: str, work: Callable[[], NDArray[np.int64]]) -> NDArray[np.int64]:
        """The sum over all ranks of an array of one shape."""
        arrays = self.gather(place, lambda: work().tobytes())
        return sum((np.frombuffer(each, np.int64) for each in arrays), np.zeros(1, np.int64))

    def before(self, place: str, count: int) -> int:
        """The sum of the counts of the ranks before this one."""
        counts = self.gather(place, lambda: str(count).encode())
        return sum(map(int, counts[: self.rank]))


ALONE = Ranks()

_SHARED = ContextVar("ranks", default=ALONE)


@contextmanager
def sharing(ranks: Ranks) -> Iterator[None]:
    """Let build, diff, apply and revert share their work with other ranks inside the block.

    Holds for this thread alone: other threads of the process work alone meanwhile.
    """
    token = _SHARED.set(ranks)
    try:
        yield
    finally:
        _SHARED.reset(token)


def shared_ranks() -> Ranks:
    """The ranks that share the work of the verb that asks."""
    return _SHARED.get()


def deal(weights: Sequence[int], size: int) -> list[range]:
    """Cut a sequence of items into ``size`` contiguous runs; some may be empty.

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
    """Call ``stage`` in rank 0, which commits when every rank is done.

    Rank 0 begins when all ranks are here: until then, they may check that the output is free. The
    other ranks get the staged path. If they fail because rank 0 is gone, they remove it.

    Raises:
        PatchcError: what ``stage`` raises in rank 0 before there is anything to write.
        StorageError: the operating system refused.
        RankError: a rank has left; then there is no output.
    """
    ranks.gather("output")
    if ranks.rank:
        staging = Path(os.fsdecode(ranks.gather("staging")[0]))
        try:
            with storage_errors(out, "write"):
                yield staging
            ranks.gather("written")
            ranks.gather("commit")
        except BaseException:
            _clear(out)
            raise
        return
    with ExitStack() as staged:
        staging = out

        def begin() -> bytes:
            nonlocal staging
            staging = staged.enter_context(stage(out))
            return os.fsencode(staging.absolute())

        ranks.gather("staging", begin)
        yield staging
        ranks.gather("written")
    with suppress(RankError):  # the output is complete, even if a rank has left
        ranks.gather("commit")


def _clear(out: Path) -> None:
    """Remove what rank 0 staged, if it is gone; as long as it lives, it does that itself."""
    with suppress(PatchcError, OSError), reserved(reserved_path(out), out):
        pass


def _error(name: str, message: str) -> PatchcError:
    """Recreate the error of another rank."""
    kinds = [PatchcError]
    for kind in kinds:
        if kind.__name__ == name:
            return kind(message)
        kinds.extend(kind.__subclasses__())
    return PatchcError(message)
