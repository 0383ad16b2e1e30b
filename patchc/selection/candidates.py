"""Which tensors take part: decoder linear layers by default, regular expressions to change that."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from patchc.errors import UsageError
from patchc.recipe.overrides import TensorOverride

_LAYER_NUMBER = re.compile(r"(?:^|\.)\d+\.")
_LAYER = re.compile(r"^(?:.*?\.)?\d+(?=\.)")
_OUTSIDE_DECODER = re.compile(
    r"(?:^|\.)(?:lm_head|shared_head|embed\w*|wte|wpe|relative_attention_bias|\w*norm\w*|ln_\w+"
    r"|vision\w*|visual|audio\w*|\w*projector|(?<!\btransformer\.)encoder)(?:\.|$)"
)
_EXPERTS = re.compile(
    r"(?:^|\.)(?:\w*experts\.(?!\w*bias)|block_sparse_moe\.(?:input|output)_linear\.weight$)"
)
_TRANSPOSED_BY_SHAPE = ("c_attn.weight", "c_fc.weight")
_GATE_AND_UP = "experts.gate_up_proj"


def is_decoder_linear(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is the weight of a linear layer inside a numbered decoder layer.

    Decided from the name and the shape alone: a layer number in the name, no part that names an
    embedding, a norm, an output head, a projector or an encoder, and either two dimensions and a
    name that ends in ``.weight`` (fused projections as well), or three dimensions and the name of
    a mixture's stacked experts: a part that ends in ``experts`` (with or without ``.weight``), or
    GraniteMoE's two. ``transformer.encoder`` is not an encoder: ChatGLM calls its decoder so.
    """
    matrix = len(shape) == 2 and name.endswith(".weight")
    experts = len(shape) == 3 and _EXPERTS.search(name) is not None
    return (
        (matrix or experts)
        and _LAYER_NUMBER.search(name) is not None
        and _OUTSIDE_DECODER.search(name) is None
    )


def layer_of(name: str) -> str:
    """The part of a tensor's name up to its first layer number; the whole name without one."""
    match = _LAYER.match(name)
    return match.group() if match else name


def module_of(name: str) -> str:
    """What a tensor is called within its layer, the numbers of experts left out."""
    rest = name.removeprefix(layer_of(name)).strip(".") or name
    return ".".join(part for part in rest.split(".") if not part.isdigit() and part != "weight")


def natural_order(name: str) -> list[tuple[int, str]]:
    """Sorts tensors and layers by the parts of their names, layer 2 before layer 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def row_length(shape: tuple[int, ...]) -> int:
    """Entries of an output row: a run of the last dimension; at least 1.

    A linear layer is stored as output × input, stacked experts as expert × output × input, fused
    projections with their outputs one after another: in all of them a row feeds one output.
    """
    return max(1, shape[-1]) if shape else 1


def find_transposed(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """A tensor that shows that matrices are stored as input × output, or None.

    Two layouts are known to do so. GPT-2's Conv1D: there ``c_attn`` and ``c_fc``, which widen, have
    more columns than rows. Stacked experts of Llama 4 and gpt-oss: there the last dimension of
    ``gate_up_proj`` is twice the middle one of its ``down_proj``.
    """
    for name, shape in shapes.items():
        if len(shape) == 2 and name.endswith(_TRANSPOSED_BY_SHAPE) and shape[1] > shape[0]:
            return name
        if len(shape) == 3 and _GATE_AND_UP in name:
            down = shapes.get(name.replace("gate_up_proj", "down_proj"), ())
            if len(down) == 3 and shape[2] == 2 * down[1]:
                return name
    return None


@dataclass(frozen=True)
class NameFilter:
    """Regular expressions over tensor names, with :func:`re.search` semantics.

    No ``include`` admits every name; ``exclude`` wins over ``include``.

    Raises:
        UsageError: an expression is malformed.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for pattern in (*self.include, *self.exclude):
            try:
                re.compile(pattern)
            except re.error as error:
                raise UsageError(
                    f"{pattern!r} is not a regular expression ({error}); correct the "
                    "include or exclude option"
                ) from error

    def matches(self, name: str) -> bool:
        """Whether the filter admits a tensor name."""
        included = not self.include or any(re.search(p, name) for p in self.include)
        return included and not any(re.search(p, name) for p in self.exclude)


def check_overrides(overrides: Sequence[TensorOverride], names: Sequence[str]) -> None:
    """Check that every override is for one of the tensors that take part.

    Raises:
        UsageError: one matches none of them.
    """
    for override in overrides:
        if not any(override.matches(name) for name in names):
            raise UsageError(
                f"the override for {override.match!r} matches none of the {len(names)} "
                "tensors that take part; correct the expression"
            )
