"""Looks for several patches in a model at once, which is read once for each size of chunks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.errors import WrongBaseError
from patchc.formats import Patch
from patchc.hashing import model_digest, short, tensor_digest
from patchc.patching.digest import chunk_digests
from patchc.patching.states import find_side
from patchc.patching.transition import Transition
from patchc.runtime.runtime import Runtime


@dataclass(frozen=True)
class Sighting:
    """What a model's digests tell of one patch.

    Attributes:
        patch: the patch.
        digest: of the model, to compare with those of the patch.
        difference: the first tensor that is on neither side, and how it differs; empty if none is
            known to be. Only where the whole digest is that of a side does it say all.
    """

    patch: Patch
    digest: bytes
    difference: str


def look_for(patches: Sequence[Patch], model: Checkpoint, runtime: Runtime) -> list[Sighting]:
    """Read a model and compare it with patches, of which none is decoded.

    Raises:
        CheckpointError: a file cannot be read.
    """
    comparisons = [_Comparison(patch, model) for patch in patches]
    grids = dict.fromkeys(patch.chunk_words for patch in patches)
    task = runtime.task(
        "read model", len(grids) * sum(tensor.nbytes for tensor in model.tensors.values()), "bytes"
    )
    for chunk_words in grids:
        tensors = []
        own = [one for one in comparisons if one.patch.chunk_words == chunk_words]
        found = chunk_digests(model, model.tensors.values(), chunk_words, runtime)
        with closing(found):
            for tensor, chunks in zip(model.tensors.values(), found, strict=True):
                digest = tensor_digest(tensor.dtype.name, tensor.shape, chunks)
                tensors.append((tensor.name, digest))
                for one in own:
                    one.take(tensor, digest, chunks)
                task.advance(tensor.nbytes, tensor.name)
        for one in own:
            one.digest = model_digest(tensors)
    return [Sighting(one.patch, one.digest, one.difference) for one in comparisons]


class _Comparison:
    """The comparison of one patch with a model, tensor by tensor."""

    def __init__(self, patch: Patch, model: Checkpoint) -> None:
        self.patch = patch
        self.digest = b""
        self.difference = ""
        self._transition = Transition(patch, model.path)
        try:
            find_side(patch, model)
        except WrongBaseError as error:
            self.difference = str(error)

    def take(self, tensor: TensorInfo, digest: bytes, chunks: Sequence[bytes]) -> None:
        """Compare a tensor, by its full digest and those of its chunks.

        A tensor with chunks of the result cannot be identified so, nor one that changes its shape.
        """
        index = self.patch.index
        if self.difference or self.patch.additive or not index.keeps_tensors:
            return
        record = index.tensors[tensor.name]
        at_base = True
        for change in map(index.chunk, record.chunks):
            side = self._transition.side_of(change, chunks[change.number])
            if side is None:
                self.difference = str(self._transition.unknown(record, change))
                return
            at_base = at_base and side == "base"
        if at_base and record.digest not in (None, short(digest)):
            self.difference = str(self._transition.wrong(tensor.name, "its values differ"))
