"""Joins the ranks that ``torchrun`` starts: bytes over gloo, signs of life over torchrun's store.

Only bytes and lengths go through torch, and nothing is unpickled. :func:`join` imports torch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from patchc.errors import MissingExtraError, RankError, UsageError
from patchc.runtime.ranks import Ranks

if TYPE_CHECKING:
    import torch

Answer = TypeVar("Answer")

PATIENCE = "PATCHC_RANK_TIMEOUT"
"""Environment variable: seconds without a sign of life after which a rank counts as lost."""

_PATIENCE_SECONDS = 120.0
_BEATS = 6
_UNLIMITED = timedelta(days=30)  # a rank may work as long as it likes while it gives signs of life
_SPEAKER, _BEAT = "patchc/speaker", "patchc/beat/"


@contextmanager
def join() -> Iterator[TorchRanks]:
    """Join the ranks that torchrun started, until the block ends.

    Raises:
        MissingExtraError: torch is not installed.
        RankError: a rank does not join.
    """
    try:
        import torch.distributed as distributed
    except ImportError as error:
        from patchc.extras import install_command

        raise MissingExtraError(
            f"a run under torchrun needs torch; install it with `{install_command('gpu')}`, or run "
            "without torchrun"
        ) from error
    if not distributed.is_available() or not distributed.is_gloo_available():
        raise MissingExtraError("this torch has no gloo backend; install one that has")
    transport = _GlooTransport(_patience())
    try:
        yield TorchRanks(transport)
    finally:
        transport.close()


class TorchRanks(Ranks):
    """The ranks that torchrun started."""

    def __init__(self, transport: _GlooTransport) -> None:
        super().__init__(transport)
        self._gloo = transport

    def speaks(self) -> bool:
        """Whether this rank prints the error; called at most once."""
        return self.rank == 0 if self.agreed else self._gloo.is_first_to_speak()


class _GlooTransport:
    """Implements :class:`patchc.runtime.ranks.Transport`.

    Calls run in a thread of their own while the main thread waits, so that signals are handled. A
    rank that stops without closing its connections is noticed by its missing beats.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._beats: dict[int, int] = {}
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self._stopped = threading.Event()
        _within(self._join, None)
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()
        # A rank that left at once would look like a failure to those that still connect.
        self._call(self._distributed.barrier)

    def exchange(self, data: bytes) -> list[bytes]:
        return self._call(lambda: self._exchange(data))

    def send(self, data: bytes) -> None:
        self._call(lambda: self._send(data))

    def receive(self, rank: int) -> bytes:
        return self._call(lambda: self._receive(rank))

    def is_first_to_speak(self) -> bool:
        try:
            return int(self._store.add(_SPEAKER, 1)) == 1
        except RuntimeError:  # torchrun itself is gone
            return True

    def close(self) -> None:
        self._stopped.set()
        self._beating.join(1)
        with suppress(RankError, RuntimeError):
            _within(self._distributed.destroy_process_group, 5)

    def _join(self) -> None:
        import torch
        import torch.distributed as distributed
        from torch.distributed.rendezvous import rendezvous

        self._torch, self._distributed = torch, distributed
        self._store, rank, size = next(rendezvous("env://"))
        distributed.init_process_group(
            "gloo", store=self._store, rank=rank, world_size=size, timeout=_UNLIMITED
        )

    def _call(self, function: Callable[[], Answer]) -> Answer:
        outcome = _start(function)
        while not wait([outcome], self._patience).done:
            self._check_beats()
        try:
            return outcome.result()
        except RuntimeError as error:
            raise RankError(
                f"rank {self.rank} of {self.size} has lost another rank, which failed or was "
                "stopped; nothing was left at the output, run the command again"
            ) from error

    def _beat(self) -> None:
        while not self._stopped.wait(self._patience / _BEATS):
            with suppress(RuntimeError):
                self._store.add(f"{_BEAT}{self.rank}", 1)

    def _check_beats(self) -> None:
        for rank in range(self.size):
            try:
                count = self._store.add(f"{_BEAT}{rank}", 0)
            except RuntimeError as error:
                raise RankError(
                    f"rank {self.rank} of {self.size} does not reach torchrun any more, which "
                    "failed or was stopped; nothing was left at the output, run the command again"
                ) from error
            if count == self._beats.get(rank):
                raise RankError(
                    f"rank {rank} of {self.size} has given no sign of life for "
                    f"{self._patience:g} seconds; nothing was left at the output, run the command "
                    f"again ({PATIENCE} sets the seconds)"
                )
            self._beats[rank] = count

    def _exchange(self, data: bytes) -> list[bytes]:
        torch, distributed = self._torch, self._distributed
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        distributed.all_gather(lengths, torch.tensor([len(data)]))
        sizes = [int(length) for length in lengths]
        most = max(sizes)
        padded = [torch.empty(most, dtype=torch.uint8) for _ in range(self.size)]
        distributed.all_gather(padded, self._tensor(data.ljust(most, b"\0")))
        return [bytes(each.numpy()[:size]) for each, size in zip(padded, sizes, strict=True)]

    def _send(self, data: bytes) -> None:
        self._distributed.send(self._torch.tensor([len(data)]), 0)
        self._distributed.send(self._tensor(data), 0)

    def _receive(self, rank: int) -> bytes:
        length = self._torch.zeros(1, dtype=self._torch.int64)
        self._distributed.recv(length, rank)
        data = self._torch.empty(int(length), dtype=self._torch.uint8)
        self._distributed.recv(data, rank)
        return bytes(data.numpy())

    def _tensor(self, data: bytes) -> torch.Tensor:
        return self._torch.frombuffer(bytearray(data), dtype=self._torch.uint8)


def _patience() -> float:
    text = os.environ.get(PATIENCE, str(_PATIENCE_SECONDS))
    try:
        patience = float(text)
    except ValueError:
        patience = 0.0
    if not 0 < patience < threading.TIMEOUT_MAX:
        raise UsageError(f"{PATIENCE} is {text!r:.80}; it must be a number of seconds above 0")
    return patience


def _start(function: Callable[[], Answer]) -> Future[Answer]:
    """Run a call in a daemon thread, so that the process can end before it does."""
    outcome: Future[Answer] = Future()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome


def _within(function: Callable[[], Answer], seconds: float | None) -> Answer:
    try:
        return _start(function).result(seconds)
    except (RuntimeError, TimeoutError) as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        raise RankError(f"the ranks do not find each other: {reason}") from error
