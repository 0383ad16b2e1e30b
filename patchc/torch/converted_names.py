"""Finds what a transformers model holds of its checkpoint, by the library's own conversion.

From version 5 on, transformers renames, stacks and joins a checkpoint's tensors as it loads them,
and :meth:`save_pretrained` takes that back. Here numbers of rows are taken back in place of the
weights: where each of them ends up tells which rows of which tensor a parameter holds. So there
is no table of architectures, and no weight is read.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from patchc.torch.slices import Slice, chosen, unmappable

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class _Numbered:
    """A parameter whose pieces have numbers: the equal parts of each row, or its elements.

    Attributes:
        name: name in the model.
        first: the first piece's number.
        count: how many pieces there are.
        shape: of the numbers.
        unit: words a piece has.
    """

    name: str
    first: int
    count: int
    shape: tuple[int, ...]
    unit: int

    def numbers(self) -> torch.Tensor:
        stop = self.first + self.count
        kind = torch.int32 if stop < 1 << 31 else torch.int64
        return torch.arange(self.first, stop, dtype=kind, device="cpu").reshape(self.shape)

    def row_lengths(self) -> set[int]:
        """How many words rows may have, of its first dimension or of several leading ones."""
        leads = range(1, len(self.shape))
        return {1, *(math.prod(self.shape[lead:]) * self.unit for lead in leads)}


class _StandIn:
    """A model whose parameters are those given; for conversions that ask for their shapes."""

    def __init__(self, model: torch.nn.Module, tensors: Tensors) -> None:
        self._model = model
        self._tensors = tensors

    def get_parameter(self, name: str) -> torch.Tensor:
        return self._tensors[name]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _NotRowsError(Exception):
    """A tensor of the checkpoint is not made of whole rows, in their order; says what it is."""


def is_transformers_model(model: torch.nn.Module) -> bool:
    """Whether a module is a model of the transformers library."""
    modeling: Any = sys.modules.get("transformers.modeling_utils")
    return modeling is not None and isinstance(model, modeling.PreTrainedModel)


def checkpoint_slices(
    model: torch.nn.Module, tensors: Tensors, known: Container[str] | None = None
) -> dict[str, list[Slice]]:
    """What each tensor of a transformers model holds of a checkpoint that save_pretrained writes.

    That is the layout which the model was loaded from, where transformers loaded it.

    Args:
        model: of transformers; only its classes and configuration are used.
        tensors: its parameters and persistent buffers by name, without the names of wrappers; only
            their shapes and dtypes are used, so they may be on device meta.
        known: names of the checkpoint's tensors, which tell whether it has the base model's prefix
            as the model has it; None if they are not known.

    Raises:
        UnsupportedInputError: tensors are quantised, or converted by more than moving whole rows,
            such as a transpose; names them.
    """
    if codes := _codes(model, tensors):
        raise unmappable(codes, "they are quantised")
    if _revert_function() is None:
        return _with_prefix(model, {name: [Slice(name)] for name in tensors}, known)
    numbered = _number(tensors)
    try:
        shapes = _take_back(model, {name: _on_meta(tensor) for name, tensor in tensors.items()})
        found = _take_back(model, {one.name: one.numbers() for one in numbered})
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise unmappable(_culprits(model, numbered) or list(tensors), reason) from error
    return _with_prefix(model, _read(tensors, numbered, shapes, found), known)


def _with_prefix(
    model: Any, held: dict[str, list[Slice]], known: Container[str] | None
) -> dict[str, list[Slice]]:
    """Names as a checkpoint has them; transformers adds or drops the base model's prefix."""
    prefix = f"{model.base_model_prefix}."

    def in_files(name: str) -> str:
        return chosen([name, prefix + name, name.removeprefix(prefix)], known)

    return {
        name: [replace(one, tensor=in_files(one.tensor)) for one in slices]
        for name, slices in held.items()
    }


def _revert_function() -> Any:
    """Transformers' own function that takes its conversion back; None before version 5."""
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:
        return None
    return revert_weight_conversion


def _codes(model: Any, tensors: Tensors) -> list[str]:
    """The tensors of a quantised model that hold codes."""
    if getattr(model, "hf_quantizer", None) is None:
        return []
    plain = (torch.Tensor, torch.nn.Parameter)
    return [
        name
        for name, tensor in tensors.items()
        if type(tensor) not in plain or tensor.element_size() == 1
    ]


def _take_back(model: torch.nn.Module, tensors: Tensors) -> dict[str, torch.Tensor]:
    """Tensors under the names and in the shapes in which transformers writes them."""
    return dict(_revert_function()(_StandIn(model, tensors), dict(tensors)))


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _number(tensors: Tensors) -> list[_Numbered]:
    """Give each piece of each tensor a number of its own, those of two tensors never in a row."""
    numbered = []
    first = 1
    for name, tensor in tensors.items():
        shape, unit = tuple(tensor.shape), 1
        if len(shape) > 1:
            parts = _parts_of(shape[-1])
            shape, unit = (*shape[:-1], parts), shape[-1] // max(parts, 1)
        one = _Numbered(name, first, math.prod(shape), shape, unit)
        numbered.append(one)
        first += one.count + 1
    return numbered


def _parts_of(columns: int) -> int:
    """How many pieces a row has: few, but three or more, so that conversions of columns show.

    One would go unseen where dimensions of one item are dropped, and two where halves interleave.
    """
    return next((parts for parts in range(3, columns) if columns % parts == 0), columns)


def _culprits(model: torch.nn.Module, numbered: Sequence[_Numbered]) -> list[str]:
    """The tensors whose conversion cannot be taken back."""
    culprits = []
    for one in numbered:
        try:
            _take_back(model, {one.name: one.numbers()})
        except Exception:
            culprits.append(one.name)
    return culprits


def _read(
    tensors: Tensors, numbered: list[_Numbered], shapes: Tensors, found: Tensors
) -> dict[str, list[Slice]]:
    """Read from the numbers in each tensor of the checkpoint which rows of the model it is."""
    slices: dict[str, list[Slice]] = {one.name: [] for one in numbered}
    covered = dict.fromkeys(slices, 0)
    refused: dict[str, str] = {}
    firsts = [one.first for one in numbered]
    for target, shape in shapes.items():
        owner = target
        try:
            if target not in found:
                raise _NotRowsError("has a part of its columns")
            runs = _runs(found[target], shape)
            for at, number, count in runs:
                one = numbered[bisect_right(firsts, number) - 1]
                if number < 1 or number + count > one.first + one.count:
                    raise _NotRowsError("has words that no parameter holds")
                owner = one.name
                slices[owner].append(_slice(target, shape, found[target], one, at, number, count))
                covered[owner] += count
                if tensors[owner].dtype != shape.dtype:
                    raise _NotRowsError(f"is {shape.dtype}")
        except _NotRowsError as reason:
            refused.setdefault(owner, f"{target!r} {reason}")
    for one in numbered:
        if covered[one.name] < one.count:
            refused.setdefault(one.name, "some of its rows are in no tensor of the checkpoint")
    if refused:
        raise unmappable(list(refused), next(iter(refused.values())))
    return {name: _in_order(name, tensors[name], held, shapes) for name, held in slices.items()}


def _runs(found: torch.Tensor, shape: torch.Tensor) -> list[tuple[int, int, int]]:
    """Numbers in a row in a tensor of the checkpoint: where they begin, the first, how many."""
    if found.dtype not in (torch.int32, torch.int64) or found.dim() != shape.dim():
        raise _NotRowsError("is computed")
    flat = found.reshape(-1)
    if not len(flat):
        return []
    starts = (flat.diff() != 1).nonzero().reshape(-1) + 1
    begins = [0, *starts.tolist()]
    stops = [*begins[1:], len(flat)]
    return [(a, int(flat[a]), b - a) for a, b in zip(begins, stops, strict=True)]


def _slice(
    target: str,
    shape: torch.Tensor,
    found: torch.Tensor,
    one: _Numbered,
    at: int,
    number: int,
    count: int,
) -> Slice:
    """A run of numbers as rows of the checkpoint's tensor, which are counted in dimension 0."""
    own = (*found.shape[:-1], found.shape[-1] * one.unit) if found.dim() else ()
    row = math.prod(shape.shape[1:])
    begin, first, words = (pieces * one.unit for pieces in (number - one.first, at, count))
    if (
        own != tuple(shape.shape)
        or row not in one.row_lengths()
        or begin % row
        or first % row
        or words % row
    ):
        raise _NotRowsError("has its rows in another order, or other columns")
    return Slice(target, (first // row, (first + words) // row), begin // row)


def _in_order(name: str, tensor: torch.Tensor, held: list[Slice], shapes: Tensors) -> list[Slice]:
    """Slices in the order of the parameter's rows, without what goes without saying."""
    ordered = sorted(held, key=lambda one: one.at or 0)
    # Slices count in rows of their own length, so "the next row" needs one length for all.
    one_length = len({math.prod(shapes[one.tensor].shape[1:]) for one in ordered}) == 1
    plain = []
    following = 0
    for one in ordered:
        first, stop = one.rows or (0, 0)
        at = one.at or 0
        shape = shapes[one.tensor].shape
        whole = (first, stop) == (0, shape[0] if shape else 1)
        reshaped = one.tensor == name and shape != tensor.shape
        plain.append(
            Slice(
                one.tensor,
                None if whole and not reshaped else (first, stop),
                None if one_length and at == following else at,
            )
        )
        following = at + stop - first
    return plain
