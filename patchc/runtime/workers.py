"""A pool of threads over functions that release the interpreter lock."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import TracebackType
from typing import TypeVar

from patchc.errors import UsageError
from patchc.runtime.ranks import ALONE, Ranks

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """A context manager around a fixed number of threads.

    Args:
        threads: how many; None means one for each core that this process may use.
        ranks: the processes among which the work is split before it comes to the threads.

    Raises:
        UsageError: ``threads`` is below 1.
    """

    def __init__(self, threads: int | None = None, ranks: Ranks = ALONE) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}; it must be at least 1")
        self.threads = threads or usable_cores()
        self.ranks = ranks
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="patchc")

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> list[Future[Result]]:
        """Queue work on all ``items``, ahead of what is asked for later; for small results."""
        return [self._pool.submit(function, item) for item in items]

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Generator[Result, None, None]:
        """Results in the order of ``items``, computed ahead by a bounded number.

        ``items`` is consumed in the calling thread. The first error, in order, is raised; work not
        yet begun is dropped then, and running work has ended. A caller that may stop early closes
        the generator, so that no thread outlives what it works on.
        """
        pending: deque[Future[Result]] = deque()
        source = iter(items)
        try:
            for item in source:
                pending.append(self._pool.submit(function, item))
                pending.extend(
                    self._pool.submit(function, more)
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


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
