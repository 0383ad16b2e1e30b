"""Finds the tensors that take part in a build: linear layers of the decoder, or as options say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from patchc.errors import UsageError
from patchc.recipe import checks
from patchc.recipe.expressions import expression
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

    The name and the shape decide. The name has a layer number and does not mention an embedding, a
    norm, an output head, a projector or an encoder. Either there are two dimensions and the name
    ends in ``.weight`` (fused projections as well), or there are three and the name is that of
    stacked experts: a section that ends in ``experts``, or one of GraniteMoE's two names.
    ``transformer.encoder`` is not an encoder: it is the name of ChatGLM's decoder.
    """
    matrix = len(shape) == 2 and name.endswith(".weight")
    experts = len(shape) == 3 and _EXPERTS.search(name) is not None
    return (
        (matrix or experts)
        and _LAYER_NUMBER.search(name) is not None
        and _OUTSIDE_DECODER.search(name) is None
    )


def layer_of(name: str) -> str:
    """A tensor's name up to its first layer number; the whole name if it has none."""
    match = _LAYER.match(name)
    return match.group() if match else name


def module_of(name: str) -> str:
    """A tensor's name within its layer, without the numbers of experts."""
    rest = name.removeprefix(layer_of(name)).strip(".") or name
    return ".".join(one for one in rest.split(".") if not one.isdigit() and one != "weight")


def natural_order(name: str) -> list[tuple[int, str]]:
    """A key that sorts names of tensors and layers with layer 2 before layer 10."""
    return [(int(one), "") if one.isdecimal() else (-1, one) for one in name.split(".")]


def row_length(shape: tuple[int, ...]) -> int:
    """Entries of an output row, the length of the last dimension; at least 1.

    A linear layer is stored as output × input, stacked experts as expert × output × input, fused
    projections with their outputs one after another. In all of them a row feeds one output.
    """
    return max(1, shape[-1]) if shape else 1


def find_transposed(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Find a tensor that shows that matrices are stored as input × output; None if there is none.

    Two layouts are known. In GPT-2's Conv1D, ``c_attn`` and ``c_fc``, which widen, have more
    columns than rows. In the stacked experts of Llama 4 and gpt-oss, the last dimension of
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
    """Regular expressions, searched for anywhere in tensor names.

    No ``include`` admits every name; ``exclude`` wins over ``include``.

    Raises:
        UsageError: an expression is malformed or not supported.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks.expressions("include", self.include)
        checks.expressions("exclude", self.exclude)

    def matches(self, name: str) -> bool:
        """Whether the filter admits a tensor name."""
        included = not self.include or any(expression(p).matches(name) for p in self.include)
        return included and not any(expression(p).matches(name) for p in self.exclude)


def check_overrides(overrides: Sequence[TensorOverride], names: Sequence[str]) -> None:
    """Check that every override is for one of the tensors that take part.

    Raises:
        UsageError: one matches none of them.
    """
    for override in overrides:
        if not any(override.matches(name) for name in names):
            raise UsageError(
                f"{override.called} matches none of the {len(names)} "
                "tensors that take part; correct the expression"
            )
