"""Pairs the tensors of two checkpoints, and finds a reference for those without a counterpart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.dtypes import DType
from patchc.errors import UsageError
from patchc.formats import TensorPair, may_refer, may_resize
from patchc.hashing import DIGEST_BYTES, tensor_digest
from patchc.patching.digest import chunk_digests
from patchc.recipe.renames import NO_RENAMES, Renames
from patchc.runtime.ranks import deal
from patchc.runtime.runtime import Runtime

_CHUNK_WORDS = 1 << 20

_Kind = tuple[DType, int]
_Content = tuple[DType, bytes]


def pair_tensors(
    base: Checkpoint, result: Checkpoint, runtime: Runtime, renames: Renames = NO_RENAMES
) -> list[TensorPair]:
    """Pair the tensors of two checkpoints, in the order of a patch file.

    Two tensors of one name and dtype are a pair, whatever their shapes, if neither is far larger.
    Any other tensor refers to one of the other side: to the one that ``renames`` says, else to one
    with the same bytes (renamed, tied, untied), else to the one of its own name (another dtype or
    size), else to none. Only tensors that could have equal bytes are read, once and by one rank.

    Args:
        base, result: the two.
        runtime: threads and ranks.
        renames: what the result calls the base's tensors; those of the same name are no pair if a
            rule says that they are others.

    Raises:
        UsageError: the rules do not fit the names, or only swap names.
        CheckpointError: a file cannot be read.
        RankError: the ranks see other tensors, or have other rules.
    """
    ranks = runtime.ranks
    tensors = [
        [(one.name, one.dtype.name, one.shape) for one in _sorted(model.tensors.values())]
        for model in (base, result)
    ]
    ranks.agree("tensors of both", repr((tensors, renames.rules)).encode())
    names = renames.of(base)
    names.check_found([result])
    twins = names.counterparts(result.tensors)
    paired = {
        name
        for name, tensor in base.tensors.items()
        if twins.get(name) == name
        and (twin := result.tensors[name]).dtype == tensor.dtype
        and may_resize(tensor.words, twin.words)
    }
    renamed = {name: new for name, new in twins.items() if new != name}
    if renamed and tensors[0] == tensors[1]:
        raise UsageError(
            f"rename: {base.path} and {result.path} have tensors of the same names, dtypes and "
            "shapes, so that none could tell which of the two a model is; leave the rules out, or "
            "give --weights-only"
        )
    removed = _sorted(t for name, t in base.tensors.items() if name not in paired)
    added = _sorted(t for name, t in result.tensors.items() if name not in paired)
    contents = _Contents(runtime)
    back = {new: name for name, new in renamed.items()}
    to_base = _references(added, result, base, contents, back)
    to_result = _references(removed, base, result, contents, renamed)
    pairs = []
    for tensor in _sorted(base.tensors.values()):
        shape = result.tensors[tensor.name].shape if tensor.name in paired else None
        reference = to_result.get(tensor.name)
        pairs.append(TensorPair(tensor.name, tensor.dtype, tensor.shape, shape, reference))
    for tensor in added:
        reference = to_base.get(tensor.name)
        pairs.append(TensorPair(tensor.name, tensor.dtype, None, tensor.shape, reference))
    return pairs


def _sorted(tensors: Iterable[TensorInfo]) -> list[TensorInfo]:
    return sorted(tensors, key=lambda tensor: tensor.name.encode())


def _references(
    tensors: list[TensorInfo],
    own: Checkpoint,
    other: Checkpoint,
    contents: _Contents,
    renamed: Mapping[str, str],
) -> dict[str, str]:
    """For tensors of ``own`` without a pair, the tensor of ``other`` that each refers to."""
    found = {
        tensor.name: renamed[tensor.name]
        for tensor in tensors
        if tensor.name in renamed
        and may_refer(tensor.dtype, other.tensors[renamed[tensor.name]].dtype)
    }
    tensors = [tensor for tensor in tensors if tensor.name not in found]
    kinds = {_kind(tensor) for tensor in tensors}
    candidates = [tensor for tensor in other.tensors.values() if _kind(tensor) in kinds]
    candidates.sort(key=lambda tensor: (tensor.name in own.tensors, tensor.name.encode()))
    kinds = set(map(_kind, candidates))
    alone = [tensor for tensor in tensors if _kind(tensor) in kinds]
    twins: dict[_Content, list[str]] = {}
    for tensor, content in zip(candidates, contents.of(other, candidates), strict=True):
        twins.setdefault(content, []).append(tensor.name)
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


@dataclass(frozen=True)
class _Contents:
    """Dtypes and digests of the words of tensors, whatever their shape; reads each once."""

    runtime: Runtime
    _known: dict[tuple[Path, str], bytes] = field(default_factory=dict)

    def of(self, model: Checkpoint, tensors: list[TensorInfo]) -> list[_Content]:
        """The contents of tensors, in order; called by all ranks."""
        new = [tensor for tensor in tensors if (model.path, tensor.name) not in self._known]
        ranks = self.runtime.ranks
        runs = deal([tensor.nbytes for tensor in new], ranks.size)
        own = [new[number] for number in runs[ranks.rank]]
        digests = b"".join(ranks.gather("contents", lambda: self._read(model, own)))
        for number, tensor in enumerate(new):
            start = number * DIGEST_BYTES
            self._known[model.path, tensor.name] = digests[start : start + DIGEST_BYTES]
        return [(tensor.dtype, self._known[model.path, tensor.name]) for tensor in tensors]

    def _read(self, model: Checkpoint, tensors: list[TensorInfo]) -> bytes:
        found = chunk_digests(model, tensors, _CHUNK_WORDS, self.runtime)
        return b"".join(
            tensor_digest(tensor.dtype.name, (), chunks)
            for tensor, chunks in zip(tensors, found, strict=True)
        )
