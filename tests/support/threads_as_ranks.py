"""Ranks of one run as threads of one process, which exchange messages through a room."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from patchc.errors import (
    RankError,
)
from patchc.runtime.ranks import Ranks

Answer = TypeVar("Answer")


class Room:
    """Where threads meet that take themselves for ranks."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.changed = threading.Condition()
        self.tables: list[dict[int, bytes]] = []
        self.somebody_left = False

    def leave(self) -> None:
        with self.changed:
            self.somebody_left = True
            self.changed.notify_all()


class Seat:
    """One rank's place in a room; implements :class:`patchc.runtime.ranks.Transport`."""

    neighbours = 1

    def __init__(self, room: Room, rank: int) -> None:
        self.rank, self.size = rank, room.size
        self._room = room
        self._meetings = 0

    def exchange(self, data: bytes) -> list[bytes]:
        with self._room.changed:
            if self._meetings == len(self._room.tables):
                self._room.tables.append({})
            table = self._room.tables[self._meetings]
            self._meetings += 1
            table[self.rank] = data
            self._room.changed.notify_all()
            self._room.changed.wait_for(
                lambda: len(table) == self.size or self._room.somebody_left, 60
            )
            if len(table) < self.size:
                raise RankError("a rank has left")
            return [table[rank] for rank in range(self.size)]

    def send(self, data: bytes) -> None:
        raise NotImplementedError

    def receive(self, rank: int) -> bytes:
        raise NotImplementedError


def together(
    size: int, run: Callable[[Ranks], Answer], seat: type[Seat] = Seat
) -> list[Answer | BaseException]:
    """What each rank returns or raises; one that raises leaves the room."""
    room = Room(size)
    ends: list[Answer | BaseException] = [RankError("not run")] * size

    def start(rank: int) -> None:
        try:
            ends[rank] = run(Ranks(seat(room, rank)))
        except BaseException as error:
            ends[rank] = error
            room.leave()

    threads = [threading.Thread(target=start, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends
