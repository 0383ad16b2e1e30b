"""Which tensors of two checkpoints belong together, and what the others are taken from."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from patchc.buffers import scratch
from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk, grid
from patchc.dtypes import DType
from patchc.formats import TensorPair, may_refer, may_resize
from patchc.hashing import DIGEST_BYTES, chunk_digest, tensor_digest
from patchc.runtime.ranks import deal
from patchc.runtime.workers import Workers

_CHUNK_WORDS = 1 << 20

_Kind = tuple[DType, int]
_Content = tuple[DType, bytes]


def pair_tensors(base: Checkpoint, result: Checkpoint, workers: Workers) -> list[TensorPair]:
    """The rows of the patch from one checkpoint to another, in the order of a patch file.

    Tensors of one name and dtype are one row, whatever their shapes, if neither is far larger. Any
    other refers to a tensor of the other side with the same bytes (renamed, tied, untied), else to
    the one of its own name (another dtype or size), else to none. Only tensors that could have the
    same bytes as such a one are read, once and by one rank.

    Raises:
        CheckpointError: a file cannot be read.
        RankError: the ranks see other tensors.
    """
    ranks = workers.ranks
    ranks.agree("tensors of both", repr([_kinds(model) for model in (base, result)]).encode())
    paired = {
        name
        for name, tensor in base.tensors.items()
        if name in result.tensors and _are_one(tensor, result.tensors[name])
    }
    removed = _sorted(t for name, t in base.tensors.items() if name not in paired)
    added = _sorted(t for name, t in result.tensors.items() if name not in paired)
    contents = _Contents(workers)
    to_base = _references(added, result, base, contents)
    to_result = _references(removed, base, result, contents)
    rows = []
    for tensor in _sorted(base.tensors.values()):
        shape = result.tensors[tensor.name].shape if tensor.name in paired else None
        reference = to_result.get(tensor.name)
        rows.append(TensorPair(tensor.name, tensor.dtype, tensor.shape, shape, reference))
    for tensor in added:
        reference = to_base.get(tensor.name)
        rows.append(TensorPair(tensor.name, tensor.dtype, None, tensor.shape, reference))
    return rows


def _sorted(tensors: Iterable[TensorInfo]) -> list[TensorInfo]:
    return sorted(tensors, key=lambda tensor: tensor.name.encode())


def _are_one(tensor: TensorInfo, twin: TensorInfo) -> bool:
    return tensor.dtype == twin.dtype and may_resize(tensor.words, twin.words)


def _references(
    tensors: list[TensorInfo], own: Checkpoint, other: Checkpoint, contents: _Contents
) -> dict[str, str]:
    """For tensors of ``own`` that stand alone, the tensor of ``other`` to take steps from."""
    kinds = {_kind(tensor) for tensor in tensors}
    candidates = [tensor for tensor in other.tensors.values() if _kind(tensor) in kinds]
    candidates.sort(key=lambda tensor: (tensor.name in own.tensors, tensor.name.encode()))
    kinds = set(map(_kind, candidates))
    alone = [tensor for tensor in tensors if _kind(tensor) in kinds]
    twins: dict[_Content, list[str]] = {}
    for tensor, content in zip(candidates, contents.of(other, candidates), strict=True):
        twins.setdefault(content, []).append(tensor.name)
    found = {}
    for tensor, content in zip(alone, contents.of(own, alone), strict=True):
        if content in twins:
            names = twins[content]
            found[tensor.name] = names.pop(0) if len(names) > 1 else names[0]
    for tensor in tensors:
        same_name = other.tensors.get(tensor.name)
        if same_name and may_refer(tensor.dtype, same_name.dtype):
            found.setdefault(tensor.name, same_name.name)
    return found


def _kind(tensor: TensorInfo) -> _Kind:
    return tensor.dtype, tensor.words


def _kinds(model: Checkpoint) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(t.name, t.dtype.name, t.shape) for t in _sorted(model.tensors.values())]


class _Contents:
    """Dtype and digest of the words of tensors, whatever their shape.

    A tensor is read once, by one of the ranks.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._known: dict[tuple[Path, str], bytes] = {}

    def of(self, model: Checkpoint, tensors: list[TensorInfo]) -> list[_Content]:
        """In their order; called by all ranks."""
        new = [tensor for tensor in tensors if (model.path, tensor.name) not in self._known]
        ranks = self._workers.ranks
        runs = deal([tensor.words * tensor.dtype.word_bytes for tensor in new], ranks.size)
        own = [new[number] for number in runs[ranks.rank]]
        parts = ranks.gather("contents", lambda: b"".join(_digests(model, own, self._workers)))
        digests = b"".join(parts)
        for number, tensor in enumerate(new):
            start = number * DIGEST_BYTES
            self._known[model.path, tensor.name] = digests[start : start + DIGEST_BYTES]
        return [(tensor.dtype, self._known[model.path, tensor.name]) for tensor in tensors]


def _digests(model: Checkpoint, tensors: list[TensorInfo], workers: Workers) -> list[bytes]:
    chunks = [grid(tensor.words, _CHUNK_WORDS) for tensor in tensors]
    jobs = ((t, chunk) for t, parts in zip(tensors, chunks, strict=True) for chunk in parts)

    def run(job: tuple[TensorInfo, Chunk]) -> bytes:
        tensor, chunk = job
        words = scratch("words", chunk.count, tensor.dtype.word)
        return chunk_digest(model.read_words(tensor, chunk.first, words))

    with closing(workers.map(run, jobs)) as digests:
        return [
            tensor_digest(tensor.dtype.name, (), [next(digests) for _ in parts])
            for tensor, parts in zip(tensors, chunks, strict=True)
        ]
