"""Reads a loaded model: copies its words to the CPU chunk by chunk."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

import numpy as np
import torch

from patchc.chunks import Chunk
from patchc.dtypes import Words
from patchc.errors import UsageError
from patchc.formats import TensorRecord
from patchc.torch.memory_layout import Layout, Run
from patchc.torch.tensors import Live, Memory, memory_of, named_tensors

_WRITES: Counter[Memory] = Counter()
"""How often patches wrote to tensors of inference mode, whose writes torch does not count."""


class LiveModel:
    """A module or state dict whose memory holds a patch's base, or some of it."""

    path = "the loaded model"

    def __init__(self, model: Live, layout: Layout) -> None:
        self._model = model
        self.layout = layout
        self._memory = {name: memory_of(t) for name, t in layout.parameters.items()}
        self._versions = self._find_versions()
        self.devices = sorted({t.device for t in layout.parameters.values() if t.is_cuda}, key=str)
        self._staging = _Staging()

    @property
    def tensors(self) -> Mapping[str, object]:
        """The base tensors of the model, by name."""
        return self.layout.runs

    def read_chunk(self, record: TensorRecord, chunk: Chunk) -> Words:
        """A copy of a chunk's words, valid until this thread reads again."""
        pieces = [
            run.words[low - run.first : high - run.first]
            for run, low, high in self.layout.pieces(record.name, chunk)
        ]
        return self._read(pieces, record.dtype.word)

    def holds(self, record: TensorRecord, run: Run, low: int, words: Words) -> bool:
        """Whether a run has ``words`` from word ``low`` of the base tensor on."""
        start = low - run.first
        piece = run.words[start : start + len(words)]
        return np.array_equal(self._read([piece], record.dtype.word), words)

    def _read(self, pieces: list[torch.Tensor], word: np.dtype[np.unsignedinteger]) -> Words:
        nbytes = sum(piece.numel() for piece in pieces) * word.itemsize
        buffer = self._staging.buffer(nbytes, pinned=bool(self.devices))
        at = 0
        for piece in pieces:
            end = at + piece.numel() * word.itemsize
            target = buffer[at:end].view(piece.dtype)
            if piece.is_cuda:
                stream = self._staging.stream(piece.device)
                with torch.cuda.stream(stream):
                    target.copy_(piece, non_blocking=True)
                stream.synchronize()
            else:
                target.copy_(piece)
            at = end
        words: Words = buffer[:nbytes].numpy().view(word)
        return words

    def synchronize(self) -> None:
        """Wait until all queued work on its devices is done."""
        for device in self.devices:
            torch.cuda.synchronize(device)

    def check_untouched(self) -> None:
        """Refuse if a parameter was moved, replaced or written to since it was read.

        Writes that torch does not count go unseen: through raw pointers, under ``.data``, and in
        tensors of inference mode all but those of patches.

        Raises:
            UsageError: naming the parameter.
        """
        tensors, _ = named_tensors(self._model)
        for name, memory in self._memory.items():
            tensor = tensors.get(name)
            if tensor is None or memory_of(tensor) != memory:
                raise UsageError(
                    f"parameter {name!r} was moved or replaced since the patch was prepared; "
                    "prepare it again"
                )
        for name, version in self._find_versions().items():
            if version != self._versions[name]:
                raise UsageError(
                    f"parameter {name!r} was written to since the patch was prepared; prepare it "
                    "again"
                )

    def count_writes(self, changed: set[str]) -> None:
        """Tell autograd, and other prepared patches, that parameters were written to."""
        for name in changed:
            tensor = self.layout.parameters[name]
            if tensor.is_inference():
                _WRITES[self._memory[name]] += 1
            else:
                torch.autograd.graph.increment_version(tensor)
        self._versions = self._find_versions()

    def _find_versions(self) -> dict[str, int]:
        return {
            name: _WRITES[self._memory[name]] if tensor.is_inference() else tensor._version
            for name, tensor in self.layout.parameters.items()
        }


class _Staging(threading.local):
    """A thread's buffer for copies from a device, and its streams."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def buffer(self, nbytes: int, pinned: bool) -> torch.Tensor:
        if len(self._buffer) < nbytes:
            self._buffer = torch.empty(nbytes, dtype=torch.uint8, pin_memory=pinned)
        return self._buffer

    def stream(self, device: torch.device) -> torch.cuda.Stream:
        if device not in self._streams:
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._streams[device] = stream
        return self._streams[device]
