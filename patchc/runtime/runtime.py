"""The resources of a command in one object: threads, memory, ranks, device, buffers, progress."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from numbers import Integral
from typing import TYPE_CHECKING, TypeVar

from patchc.buffers import ThreadBuffer
from patchc.errors import StorageError, UsageError
from patchc.progress import Progress, ProgressEvent, ignore_progress
from patchc.runtime.device import open_device
from patchc.runtime.device_pool import DevicePool
from patchc.runtime.memory import MemoryNeed, usable_cores
from patchc.runtime.ranks import ALONE, Ranks

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


MOST_THREADS = 1024
"""More would wait for one another, and a system may not give them."""


class Buffers:
    """Arrays that threads reuse from chunk to chunk, each named for its contents."""

    def __init__(self) -> None:
        self.base = ThreadBuffer()
        self.words = ThreadBuffer()
        self.result = ThreadBuffer()
        self.positions = ThreadBuffer()
        self.steps = ThreadBuffer()
        self.mask = ThreadBuffer()
        self.merged = ThreadBuffer()
        self.deltas = (ThreadBuffer(), ThreadBuffer())
        self.scores = ThreadBuffer()
        self.tuned = ThreadBuffer()
        self.tuned_pieces = ThreadBuffer()
        self.scored_base = ThreadBuffer()
        self.scored_tuned = ThreadBuffer()
        self.used = ThreadBuffer()


def _is_whole(number: object) -> bool:
    return isinstance(number, Integral)


@dataclass
class Task:
    """A stage of the work that reports its progress to the caller."""

    progress: Progress
    stage: str
    total: int
    unit: str
    done: int = 0

    def advance(self, amount: int, detail: str = "") -> None:
        """Report that ``amount`` more is done."""
        self.done += amount
        self.progress(ProgressEvent(self.stage, self.done, self.total, self.unit, detail))


class Runtime:
    """The resources of one command; a context manager that ends its threads.

    Args:
        threads: the most worker threads; None means one per core that this process may use.
        max_memory: bytes that the process may take; see :meth:`fit`.
        device: the device for work that can run on one.
        ranks: the processes that share the work; each has threads of its own.
        progress: called as work is done.

    Raises:
        UsageError: ``threads`` is below 1 or above :data:`MOST_THREADS`, or it or ``max_memory``
            is no whole number.
    """

    def __init__(
        self,
        threads: int | None = None,
        max_memory: int | None = None,
        device: str | torch.device = "cpu",
        ranks: Ranks = ALONE,
        progress: Progress = ignore_progress,
    ) -> None:
        if threads is not None and not (_is_whole(threads) and 1 <= threads <= MOST_THREADS):
            raise UsageError(f"threads must be a number from 1 to {MOST_THREADS}")
        if max_memory is not None and not _is_whole(max_memory):
            raise UsageError(
                f"max_memory is {max_memory!r:.80}; give a whole number of bytes, as 500_000_000"
            )
        self.threads = threads or usable_cores()
        self.ranks = ranks
        self.buffers = Buffers()
        self.pool: DevicePool | None = None
        self._threads_asked = threads
        self._max_memory = max_memory
        self._device = device
        self._progress = progress

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        if "_executor" in vars(self):
            self._executor.shutdown(wait=True, cancel_futures=True)

    @cached_property
    def _executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix="patchc")

    def open_device(self) -> DevicePool | None:
        """Open the device and set ``pool`` to it; None means the CPU.

        Raises:
            UsageError, MissingExtraError: as :func:`patchc.runtime.device.open_device`.
        """
        self.pool = open_device(self._device)
        return self.pool

    def check_device(self) -> None:
        """Refuse an unusable device, for work that only the CPU does.

        Raises:
            UsageError, MissingExtraError: as :func:`patchc.runtime.device.open_device`.
        """
        if self._device != "auto":
            open_device(self._device)

    def fit(self, need: MemoryNeed, most: int | None = None) -> None:
        """Set the number of threads to what the memory budget allows; called before any work.

        Args:
            need: the memory that the work takes.
            most: another limit on the threads.

        Raises:
            UsageError: one thread is too much for the budget that was asked for.
        """
        fitting = need.threads_within(self._threads_asked, self._max_memory, self.ranks.neighbours)
        self.threads = fitting if most is None else min(fitting, most)

    def task(self, stage: str, total: int, unit: str) -> Task:
        """Begin a stage of ``total`` units."""
        return Task(self._progress, stage, total, unit)

    def submit(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> list[Future[Result]]:
        """Queue work on all ``items`` before any later work; for small results.

        Raises:
            StorageError: the system starts no more threads.
        """
        return [self._submit(function, item) for item in items]

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Generator[Result, None, None]:
        """Results in the order of ``items``, computed ahead by a bounded number.

        The calling thread consumes ``items``. The first error, in order, is raised after running
        work has ended; work not yet begun is dropped. A caller that may stop early has to close the
        generator, so that no thread outlives the files that it reads.

        Raises:
            StorageError: the system starts no more threads.
        """
        pending: deque[Future[Result]] = deque()
        source = iter(items)
        try:
            for item in source:
                pending.append(self._submit(function, item))
                pending.extend(
                    self._submit(function, more)
                    for more in islice(source, max(0, 2 * self.threads - len(pending)))
                )
                yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            for future in pending:
                if not future.cancelled():
                    future.exception()

    def _submit(self, function: Callable[[Item], Result], item: Item) -> Future[Result]:
        try:
            return self._executor.submit(function, item)
        except RuntimeError as error:
            if "start new thread" not in str(error):
                raise
            raise StorageError(
                "the system starts no more threads; lower --threads, or raise the limit of "
                "processes (ulimit -u)"
            ) from error
