"""Moves chunks to a device and back through pinned buffers and their twins on the device."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from patchc.errors import UnsupportedInputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DEVICE_BYTES = 2 << 30
"""Memory that a command takes on a device by default."""

HOST_BYTES = 1 << 30
"""Host memory that torch and a device's driver take; assumed, not measured."""

_SEARCH_BYTES = 32 << 20  # histograms of running searches, and small tensors


class DevicePool:
    """Buffers and streams between worker threads and one device.

    A thread has one buffer for each slot and reuses it from chunk to chunk. Copies run on one
    stream and kernels on another; one thread at a time launches kernels.

    Args:
        device: "cuda" or "cuda:1". With "cpu", tensors lie in the host's memory and kernels run
            their compiled loops, so that everything but the device can be tested.
        memory: bytes to take on the device, without those of torch and its driver: half for buffers
            and kernels, half for tensors that stay there.
    """

    def __init__(self, device: str = "cuda", memory: int = DEVICE_BYTES) -> None:
        import torch

        self.device = torch.device(device)
        self.memory = memory
        self._launching = threading.Lock()
        self._own = _OwnSlots()
        self._copies: torch.cuda.Stream | None = None
        self._kernels: torch.cuda.Stream | None = None
        if self.device.type == "cuda":
            self._copies = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            self._kernels = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    @property
    def room(self) -> int:
        """Bytes for tensors that stay on the device."""
        return self.memory // 2

    def most_threads(self, chunk_bytes: int) -> int:
        """How many threads may run if each of them, and one kernel, takes ``chunk_bytes``."""
        buffers = self.memory - self.room - _SEARCH_BYTES - chunk_bytes
        return max(1, buffers // chunk_bytes)

    def words(self, slot: str, count: int, dtype: DTypeLike) -> StagedChunk:
        """This thread's buffer for ``slot``, valid until the thread asks for the slot again.

        Waits until its earlier contents have been copied.
        """
        needed = max(1, count * np.dtype(dtype).itemsize)
        found = self._own.slots.get(slot)
        if found is not None:
            found.wait()
        if found is None or found.size < needed:
            found = self._own.slots[slot] = _Slot(needed, self.device)
        return StagedChunk(self, found, count, dtype)

    def send(self, slot: str, values: NDArray[Any], dtype: torch.dtype) -> Tensor:
        """Copy an array into the buffer for ``slot`` and queue its upload."""
        staged = self.words(slot, values.size, values.dtype)
        staged.words[:] = values
        return staged.upload(dtype)

    def empty(self, count: int, dtype: torch.dtype) -> Tensor:
        """A tensor on the device outside the buffers of the threads.

        Raises:
            UnsupportedInputError: the device has no room for it.
        """
        import torch

        with _room_errors(self.device):
            return torch.empty(count, dtype=dtype, device=self.device)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Launch kernels, one thread at a time; waits for uploads first and for kernels at the end.

        Raises:
            UnsupportedInputError: the device has no room for the work.
        """
        for slot in self._own.slots.values():
            slot.wait()
        with self._launching, ExitStack() as stack:
            stack.enter_context(_room_errors(self.device))
            if self._kernels is not None:
                import torch

                stack.callback(self._kernels.synchronize)
                stack.enter_context(torch.cuda.stream(self._kernels))
            yield

    def copy(self, target: Tensor, source: Tensor) -> torch.cuda.Event | None:
        """Queue a copy on the copying stream; None means that it is done."""
        if self._copies is None:
            target.copy_(source)
            return None
        import torch

        with torch.cuda.stream(self._copies):
            target.copy_(source, non_blocking=True)
            copied: torch.cuda.Event = self._copies.record_event()
            return copied


class StagedChunk:
    """A chunk in a buffer: fill ``words`` on the host, then upload them."""

    def __init__(self, pool: DevicePool, slot: _Slot, count: int, dtype: DTypeLike) -> None:
        self.pool = pool
        self._slot = slot
        self._size = count * np.dtype(dtype).itemsize
        self.words: NDArray[Any] = slot.host.numpy()[: self._size].view(dtype)

    def upload(self, dtype: torch.dtype) -> Tensor:
        """Queue the copy to the buffer's twin on the device, and return the twin."""
        twin: Tensor = self._slot.twin()[: self._size].view(dtype)
        self.upload_to(twin)
        return twin

    def upload_to(self, target: Tensor) -> None:
        """Queue the copy to a tensor of as many bytes."""
        import torch

        source = self._slot.host[: self._size]
        self._slot.copied = self.pool.copy(target.view(torch.uint8), source)

    def download(self) -> None:
        """Copy the twin back into ``words``; called inside :meth:`DevicePool.computing`."""
        self._slot.host[: self._size].copy_(self._slot.twin()[: self._size], non_blocking=True)

    def wait(self) -> None:
        """Wait until the upload is done."""
        self._slot.wait()


class _Slot:
    """Host memory, pinned for a CUDA device, and its twin of equal size on the device."""

    def __init__(self, size: int, device: torch.device) -> None:
        import torch

        self.size = size
        self.copied: torch.cuda.Event | None = None
        self.host = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._device = device
        self._twin: Tensor | None = None

    def twin(self) -> Tensor:
        if self._twin is None:
            import torch

            with _room_errors(self._device):
                self._twin = torch.empty(self.size, dtype=torch.uint8, device=self._device)
        return self._twin

    def wait(self) -> None:
        if self.copied is not None:
            self.copied.synchronize()
            self.copied = None


class _OwnSlots(threading.local):
    def __init__(self) -> None:
        self.slots: dict[str, _Slot] = {}


@contextmanager
def _room_errors(device: torch.device) -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UnsupportedInputError(
            f"{device} has no room left ({str(error).splitlines()[0]}); end what else runs on it, "
            "take fewer threads, or run on the CPU (--device cpu)"
        ) from error
