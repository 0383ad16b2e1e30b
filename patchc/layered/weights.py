"""The weights of a model as its parts ask for them: held in memory, or read layer by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

from patchc.layered.model_parts import ModelParts
from patchc.layered.sources import Source, read_whole


class Weights(Protocol):
    """The weights of a model.

    Attributes:
        dtype: of the embedding, and of everything that is not brought in for autocast.
    """

    dtype: torch.dtype

    def layer(self, number: int, following: int | None) -> dict[str, Tensor]:
        """Return a layer's weights, by their names within the layer, on the device.

        They are valid until the next call. ``following`` is the layer that will be asked for next.
        """

    def rows(self, name: str, first: int, last: int) -> Tensor:
        """Return some rows of a matrix outside the layers."""

    def picked(self, name: str, ids: Tensor) -> Tensor:
        """Return a copy of the rows with these numbers."""

    def holding(self, name: str) -> AbstractContextManager[None]:
        """Have a matrix outside the layers in memory for a while, if there is room for it."""

    def changed(self) -> None:
        """Take note that the source's values have changed."""


class HeldWeights:
    """Weights that are all in memory.

    Attributes:
        values: each tensor in its shape, by name; may be changed in place.
    """

    def __init__(self, parts: ModelParts, values: Mapping[str, Tensor]) -> None:
        self.dtype = values[parts.embedding_name].dtype
        self.values = values
        self._parts = parts

    @classmethod
    def read(
        cls, parts: ModelParts, source: Source, device: torch.device, dtype: torch.dtype
    ) -> HeldWeights:
        """Read all weights but the rest of the parameters, which hold the base's values."""
        values = {
            name: read_whole(source, name, shape, dtype).to(device)
            for name, shape in parts.shapes.items()
            if name not in parts.rest
        }
        return cls(parts, values | {name: one.detach() for name, one in parts.rest.items()})

    def layer(self, number: int, _following: int | None) -> dict[str, Tensor]:
        """See :class:`Weights`."""
        names = self._parts.layer_names[number]
        return {local: self.values[name].detach() for local, name in names.items()}

    def rows(self, name: str, first: int, last: int) -> Tensor:
        """See :class:`Weights`."""
        return self.values[name][first:last]

    def picked(self, name: str, ids: Tensor) -> Tensor:
        """See :class:`Weights`."""
        return self.values[name][ids]

    def holding(self, _name: str) -> AbstractContextManager[None]:
        """See :class:`Weights`; it always is."""
        return nullcontext()

    def changed(self) -> None:
        """See :class:`Weights`; the rest of the parameters are the values themselves."""


class StreamedWeights:
    """Weights that are read when they are asked for, the next layer while one is computed.

    Two layers are in memory: one in use, and one that is being read. On CUDA, they are read into
    pinned memory and copied while the device computes.

    Args:
        parts: the model.
        source: gives the values.
        device: where the model computes.
        dtype: of the weights.
        in_bf16: whether the weights that autocast would round are rounded as they are read.
        ahead: whether the next layer is read while one is computed.
        holds_head: whether a matrix outside the layers is held whole while all losses need it, and
            not read block by block for each.
    """

    def __init__(
        self,
        parts: ModelParts,
        source: Source,
        device: torch.device,
        dtype: torch.dtype,
        in_bf16: bool,
        ahead: bool = True,
        holds_head: bool = False,
    ) -> None:
        self.dtype = dtype
        self._parts = parts
        self._source = source
        self._device = device
        self._rounded = parts.in_bf16 if in_bf16 else frozenset[str]()
        self._holds_head = holds_head
        self._held: dict[str, Tensor] = {}
        self._slots: list[_HostSlot] = []
        self._numbers: list[int | None] = [None] * (2 if ahead else 1)
        self._pending: list[Future[None] | None] = [None] * len(self._numbers)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="patchc-weights")

    def close(self) -> None:
        """Stop reading ahead."""
        self._reader.shutdown(wait=True, cancel_futures=True)

    def forget(self) -> None:
        """Give up the memory of the layers; it is taken again when one is asked for."""
        for place in range(len(self._numbers)):
            self._wait(place)
            self._numbers[place] = None
        self._slots = []

    def layer(self, number: int, following: int | None) -> dict[str, Tensor]:
        """See :class:`Weights`.

        Raises:
            CheckpointError, StorageError: the source cannot be read.
        """
        if not self._slots:
            size = largest_layer(self._parts, self._rounded, self.dtype)
            kind = _CudaSlot if self._device.type == "cuda" else _HostSlot
            self._slots = [kind(size, self._device) for _ in self._numbers]
        if number not in self._numbers:
            self._start(0, number)
        place = self._numbers.index(number)
        self._wait(place)
        if len(self._slots) > 1 and following is not None and following != number:
            other = 1 - place
            if self._numbers[other] != following:
                self._start(other, following)
        return self._views(self._slots[place].ready(), number)

    def rows(self, name: str, first: int, last: int) -> Tensor:
        """See :class:`Weights`."""
        if name in self._held:
            return self._held[name][first:last]
        columns = self._parts.shapes[name][1]
        values = torch.empty((last - first, columns), dtype=self.dtype)
        self._source.read(name, first * columns, values.view(-1))
        return values.to(self._device)

    def picked(self, name: str, ids: Tensor) -> Tensor:
        """See :class:`Weights`."""
        columns = self._parts.shapes[name][1]
        values = torch.empty((len(ids), columns), dtype=self.dtype)
        for row, number in zip(values, ids.tolist(), strict=True):
            self._source.read(name, number * columns, row)
        return values.to(self._device)

    @contextmanager
    def holding(self, name: str) -> Iterator[None]:
        """See :class:`Weights`."""
        if self._holds_head:
            shape = self._parts.shapes[name]
            self._held[name] = read_whole(self._source, name, shape, self.dtype).to(self._device)
        try:
            yield
        finally:
            self._held.pop(name, None)

    def changed(self) -> None:
        """See :class:`Weights`."""
        for place, pending in enumerate(self._pending):
            if pending is not None:
                self._wait(place)
            self._numbers[place] = None
        for name, parameter in self._parts.rest.items():
            values = read_whole(self._source, name, tuple(parameter.shape), parameter.dtype)
            with torch.no_grad():
                parameter.copy_(values)

    def _start(self, place: int, number: int) -> None:
        """Begin to read a layer into a slot, when nothing computes with the slot any more."""
        self._wait(place)
        self._numbers[place] = number
        self._slots[place].release()
        self._pending[place] = self._reader.submit(self._read, self._slots[place], number)

    def _wait(self, place: int) -> None:
        pending, self._pending[place] = self._pending[place], None
        if pending is not None:
            try:
                pending.result()
            except BaseException:
                self._numbers[place] = None
                raise

    def _read(self, slot: _HostSlot, number: int) -> None:
        for name, flat in self._places(slot.host, number):
            self._source.read(name, 0, flat)
        slot.send()

    def _places(self, held: Tensor, number: int) -> list[tuple[str, Tensor]]:
        """Cut a slot's bytes into the flat tensors of a layer."""
        found, at = [], 0
        for name, shape in self._parts.group(number).items():
            dtype = self._kind(name)
            size = math.prod(shape) * dtype.itemsize
            found.append((name, held[at : at + size].view(dtype)))
            at += _aligned(size)
        return found

    def _views(self, held: Tensor, number: int) -> dict[str, Tensor]:
        flat = dict(self._places(held, number))
        names, shapes = self._parts.layer_names[number], self._parts.shapes
        return {local: flat[name].view(shapes[name]) for local, name in names.items()}

    def _kind(self, name: str) -> torch.dtype:
        return torch.bfloat16 if name in self._rounded else self.dtype


class _HostSlot:
    """Memory of one layer on the CPU."""

    def __init__(self, size: int, _device: torch.device) -> None:
        self.host = torch.empty(size, dtype=torch.uint8)

    def release(self) -> None:
        """Take note that what was computed with the layer so far is all."""

    def send(self) -> None:
        """Bring what was read to the device."""

    def ready(self) -> Tensor:
        """Return the layer's bytes on the device."""
        return self.host


class _CudaSlot(_HostSlot):
    """Memory of one layer on the host, pinned, and on the device."""

    def __init__(self, size: int, device: torch.device) -> None:
        super().__init__(size, device)
        self.host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        self._held = torch.empty(size, dtype=torch.uint8, device=device)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._free = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._sent = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def release(self) -> None:
        self._free.record(torch.cuda.current_stream(self._held.device))

    def send(self) -> None:
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._free)
            self._held.copy_(self.host, non_blocking=True)
            self._sent.record(self._stream)
        # The host's memory is written again when the slot is; by then this copy must be done.
        self._sent.synchronize()

    def ready(self) -> Tensor:
        torch.cuda.current_stream(self._held.device).wait_event(self._sent)
        return self._held


def largest_layer(parts: ModelParts, rounded: frozenset[str], dtype: torch.dtype) -> int:
    """Count the bytes of the largest layer's weights, each tensor from a multiple of 64 on.

    Those in ``rounded`` are in bfloat16, the others in ``dtype``.
    """
    return max(
        sum(
            _aligned(math.prod(shape) * (2 if name in rounded else dtype.itemsize))
            for name, shape in parts.group(number).items()
        )
        for number in range(len(parts.layers))
    )


def weight_bytes(parts: ModelParts, dtype: torch.dtype) -> int:
    """Count the bytes of all weights in a dtype."""
    return dtype.itemsize * sum(map(math.prod, parts.shapes.values()))


def _aligned(size: int) -> int:
    return -(-size // 64) * 64
