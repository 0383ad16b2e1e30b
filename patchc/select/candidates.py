"""Which tensors take part: decoder linear layers by default, regular expressions to change that."""

from __future__ import annotations

import re
from dataclasses import dataclass

from patchc.errors import UsageError

_LAYER_NUMBER = re.compile(r"(?:^|\.)\d+\.")
_OUTSIDE_DECODER = re.compile(
    r"(?:^|\.)(?:lm_head|embed\w*|wte|wpe|\w*norm\w*|ln_\w+|vision\w*|visual|audio\w*|encoder)(?:\.|$)"
)


def is_decoder_linear(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is the weight matrix of a linear layer inside a numbered decoder layer.

    Decided from the name and the shape alone: two dimensions, a name that ends in ``.weight``, a
    layer number in it, and no part that names an embedding, a norm, an output head or an encoder.
    """
    return (
        len(shape) == 2
        and name.endswith(".weight")
        and _LAYER_NUMBER.search(name) is not None
        and _OUTSIDE_DECODER.search(name) is None
    )


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
