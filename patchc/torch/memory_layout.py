"""Finds the memory of a live model that holds each word of the base, by name or by a given map."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from patchc.chunks import Chunk
from patchc.errors import UnsupportedInputError, UsageError, WrongBaseError
from patchc.formats import Patch, TensorRecord
from patchc.torch.slices import Slice, Slices
from patchc.torch.tensors import (
    Live,
    Memory,
    check_plain,
    dtype_of,
    memory_of,
    name_of,
    named_tensors,
    words_of,
)

_RUN_WORDS = 1 << 30


@dataclass(frozen=True, eq=False)
class Run:
    """Consecutive words of a base tensor in the memory of a live model.

    Attributes:
        parameter: name in the model.
        words: the memory, in one dimension; fewer than 2³¹ words.
        first: index of the first word in the base tensor.
        writes: False if another run has the same memory and changes it.
    """

    parameter: str
    words: torch.Tensor
    first: int
    writes: bool = True

    def overlap(self, chunk: Chunk) -> tuple[int, int] | None:
        """The range of the base tensor's words that both have; None if there is none."""
        low = max(self.first, chunk.first)
        high = min(self.first + len(self.words), chunk.first + chunk.count)
        return (low, high) if low < high else None


@dataclass(frozen=True)
class Layout:
    """The runs of a live model by base tensor, in the order of its words."""

    runs: Mapping[str, tuple[Run, ...]]
    parameters: Mapping[str, torch.Tensor]

    def pieces(self, tensor: str, chunk: Chunk) -> Iterator[tuple[Run, int, int]]:
        """The runs that hold words of a chunk, each with its range of the base tensor's words."""
        for run in self.runs[tensor]:
            overlap = run.overlap(chunk)
            if overlap:
                yield run, *overlap


def lay_out(patch: Patch, model: Live, mapping: Slices, shard: bool, replicas: bool) -> Layout:
    """Find every tensor of a patch in a live model.

    Args:
        patch: of exact steps, with the same tensors on both sides.
        model: a module or a state dict.
        mapping: what parameters hold, if not the base tensor of the same name.
        shard: words of the base may be missing from the model.
        replicas: the model may hold words of the base more than once.

    Raises:
        WrongBaseError: a tensor is missing, unknown, or of another dtype or shape; names it.
        UsageError: ``mapping`` does not fit; names the parameter.
        UnsupportedInputError: a parameter cannot be changed in place, or shares memory with another
            that the patch changes otherwise; names it.
    """
    tensors, needed = named_tensors(model)
    for name, slices in mapping.items():
        if name not in tensors:
            raise UsageError(f"mapping: the model has no parameter {name!r}")
        if not isinstance(slices, list | tuple) or not all(isinstance(s, Slice) for s in slices):
            raise UsageError(
                f"mapping: parameter {name!r} takes a list of slices, such as "
                f"[Slice('q_proj.weight')]; it has {slices!r:.80}"
            )
    runs: dict[str, list[Run]] = {}
    parameters: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        slices = mapping.get(name, [Slice(name)] if name in patch.index.tensors else [])
        if any(one.tensor in patch.index.tensors for one in slices):
            check_plain(name, tensor)
            if name not in mapping:
                _check_shape(patch, name, tensor)
            parameters[name] = tensor
            for held, run in _runs(patch, name, tensor, slices):
                runs.setdefault(held, []).append(run)
    unknown = [n for n in tensors if n in needed and n not in parameters and mapping.get(n) != []]
    _check_unknown(patch, {name: tensors[name] for name in unknown}, parameters, mapping)
    settled = _settle_memory(patch, runs)
    for name, record in patch.index.tensors.items():
        found = settled.setdefault(name, [])
        found.sort(key=lambda run: run.first)
        if not shard:
            _check_complete(patch, record, found)
        if not replicas:
            _check_once(name, found)
    return Layout({name: tuple(found) for name, found in settled.items()}, parameters)


def _check_shape(patch: Patch, name: str, tensor: torch.Tensor) -> None:
    record = patch.index.tensors[name]
    if tuple(tensor.shape) != record.shape:
        raise WrongBaseError(
            f"parameter {name!r} has shape {list(tensor.shape)} and the base of {patch.path} "
            f"{list(record.shape)}; where it is fused or sharded, say in mapping= what it holds"
        )
    _check_dtype(patch, name, tensor, record)


def _check_dtype(patch: Patch, name: str, tensor: torch.Tensor, record: TensorRecord) -> None:
    if dtype_of(tensor) != record.dtype:
        wanted = name_of(record.dtype)
        raise WrongBaseError(
            f"parameter {name!r} is {str(tensor.dtype).removeprefix('torch.')} and the base of "
            f"{patch.path} has {wanted}: a patch is bound to the stored bits, so load the model "
            f"with dtype=torch.{wanted}, or this parameter alone where the others are right"
        )


def _runs(
    patch: Patch, name: str, tensor: torch.Tensor, slices: Sequence[Slice]
) -> Iterator[tuple[str, Run]]:
    following = 0
    for one in slices:
        record = patch.index.tensors.get(one.tensor)
        if record is None:
            raise _absent(patch, name, one)
        _check_dtype(patch, name, tensor, record)
        rows = record.shape[0] if record.shape else 1
        first, stop = (0, rows) if one.rows is None else one.rows
        at = following if one.at is None else one.at
        following = at + stop - first
        width = math.prod(record.shape[1:])
        widths = {math.prod(tensor.shape[lead:]) for lead in range(1, tensor.dim() + 1)} or {1}
        held = tensor.numel() // width if width else max(tensor.shape[:1], default=1)
        if width not in widths:
            raise WrongBaseError(
                f"parameter {name!r} is {tensor.dtype} {list(tensor.shape)} and cannot hold rows "
                f"of {one.tensor!r}, which is {record.dtype.name} {list(record.shape)}"
            )
        if not (0 <= first <= stop <= rows and at >= 0 and following <= held):
            raise UsageError(
                f"mapping: parameter {name!r} has {held} rows and {one.tensor!r} {rows}; rows "
                f"{first} to {stop} of the one are not at row {at} of the other"
            )
        words = words_of(tensor)[at * width : following * width]
        for cut in range(0, len(words), _RUN_WORDS):
            yield one.tensor, Run(name, words[cut : cut + _RUN_WORDS], first * width + cut)


def _absent(patch: Patch, name: str, one: Slice) -> UsageError:
    return UsageError(
        f"mapping: parameter {name!r}: the base of {patch.path} has no {one.tensor!r}; name a "
        "tensor of this base (mapping_for(model, patch=…) finds its layout), or give the parameter "
        "an empty list to leave it alone"
    )


def _check_unknown(
    patch: Patch,
    unknown: Mapping[str, torch.Tensor],
    known: Mapping[str, torch.Tensor],
    mapping: Slices,
) -> None:
    """Check that parameters unknown to the base are other names for known memory."""
    found = {memory_of(tensor) for tensor in known.values()}
    for name, tensor in unknown.items():
        check_plain(name, tensor)
        if tensor.numel() and memory_of(tensor) not in found:
            if name in mapping:
                raise _absent(patch, name, mapping[name][0])
            wrapper = _wrapper(patch, name)
            inside = f", and one {name.removeprefix(wrapper)!r}: pass the module inside {wrapper!r}"
            raise WrongBaseError(
                f"the base of {patch.path} has no tensor {name!r}{inside if wrapper else ''}; say "
                "in mapping= what the parameter holds (patchc.torch.mapping_for(model) finds it "
                "for many models), or give it an empty list to leave it alone"
            )


def _wrapper(patch: Patch, name: str) -> str:
    """What stands before the name of a base tensor in a parameter's name, as "module."; or ""."""
    parts = name.split(".")
    rests = (".".join(parts[at:]) for at in range(1, len(parts)))
    return next((name.removesuffix(rest) for rest in rests if rest in patch.index.tensors), "")


def _settle_memory(patch: Patch, runs: Mapping[str, list[Run]]) -> dict[str, list[Run]]:
    """Choose one run to change each piece of memory.

    Raises:
        UnsupportedInputError: two runs overlap partly, or the patch changes tied runs differently.
    """
    settled: dict[str, list[Run]] = {}
    writers: dict[Memory, tuple[str, Run]] = {}
    for tensor, of_tensor in runs.items():
        for run in of_tensor:
            writer, other = writers.setdefault(memory_of(run.words), (tensor, run))
            if other is run:
                settled.setdefault(tensor, []).append(run)
            elif (writer, other.first) != (tensor, run.first):
                if _changes(patch, writer, other) != _changes(patch, tensor, run):
                    raise UnsupportedInputError(
                        f"{writer!r} and {tensor!r} are tied in the model (parameters "
                        f"{other.parameter!r} and {run.parameter!r}) and {patch.path} changes them "
                        "apart; untie them first"
                    )
                settled.setdefault(tensor, []).append(replace(run, writes=False))
    ordered = sorted(writers.items(), key=lambda item: (str(item[0].device), item[0].start))
    for (left, (_, one)), (right, (_, two)) in pairwise(ordered):
        if left.device == right.device and right.start < left.stop:
            raise UnsupportedInputError(
                f"parameters {one.parameter!r} and {two.parameter!r} share a part of their memory; "
                "pass each weight once, the fused one with mapping="
            )
    return settled


def _changes(patch: Patch, tensor: str, run: Run) -> list[tuple[int, bytes, bytes]]:
    """The changes of a patch in the chunks that overlap a run."""
    changes = []
    for change in map(patch.index.chunk, patch.index.tensors[tensor].chunks):
        first = change.number * patch.chunk_words
        if run.overlap(Chunk(change.number, first, patch.chunk_words)):
            changes.append((first - run.first, change.base_digest, change.result_digest))
    return changes


def _check_complete(patch: Patch, record: TensorRecord, runs: Sequence[Run]) -> None:
    reached = 0
    for run in runs:
        if run.first > reached:
            break
        reached = max(reached, run.first + len(run.words))
    if reached < record.words:
        raise WrongBaseError(
            f"the model does not hold tensor {record.name!r} of the base of {patch.path}, or not "
            "all of it; say in mapping= which parameter does, or, if this process has a part of "
            "the model (a shard, or all but a draft head), pass shard=True and base="
        )


def _check_once(tensor: str, runs: Sequence[Run]) -> None:
    for one, two in pairwise(runs):
        if two.first < one.first + len(one.words):
            raise UnsupportedInputError(
                f"tensor {tensor!r} is held twice, by parameters {one.parameter!r} and "
                f"{two.parameter!r}; pass base=, so that both can be compared with it"
            )
