"""Says which rows of the base a parameter holds."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

from patchc.errors import UnsupportedInputError, UsageError

_NAMED = 3
"""Parameters that an error names."""


@dataclass(frozen=True)
class Slice:
    """Consecutive rows of a base tensor that a parameter holds.

    A fused parameter has several slices; a sharded one has a slice with ``rows``. Rows are counted
    in the base tensor's first dimension. The parameter has rows of the same length, in its first
    dimension or in several leading ones together, as when a layer's experts are one parameter.

    Attributes:
        tensor: name in the base.
        rows: the first row and the one after the last; None for all.
        at: the parameter's row where they begin; None for the one after the previous slice.

    Raises:
        UsageError: ``rows`` is no pair of numbers, or ``at`` no number.
    """

    tensor: str
    rows: tuple[int, int] | None = None
    at: int | None = None

    def __post_init__(self) -> None:
        rows = (0, 0) if self.rows is None else self.rows
        if (
            not isinstance(rows, Sequence)
            or len(rows) != 2
            or not _are_numbers(*rows, self.at or 0)
        ):
            raise UsageError(
                f"slice of {self.tensor!r}: rows is {self.rows!r:.80} and at is {self.at!r:.80}; "
                "rows are the first one and the one after the last, such as (0, 64), and at is one "
                "number"
            )


Slices = Mapping[str, Sequence[Slice]]
"""Parameter → what it holds. A parameter without slices is ignored."""


def _are_numbers(*values: object) -> bool:
    return all(isinstance(value, Integral) for value in values)


def chosen(names: Sequence[str], known: Container[str] | None) -> str:
    """Of the names that a tensor may have, the first that is known; the first if none is."""
    return next((one for one in names if known is not None and one in known), names[0])


def unmappable(names: Sequence[str], reason: str) -> UnsupportedInputError:
    """The error that parameters hold something else than rows of the checkpoint's tensors."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    named = ", ".join(map(repr, names[:_NAMED]))
    return UnsupportedInputError(
        f"parameter{'s' if len(names) > 1 else ''} {named}{more} of the model cannot be mapped to "
        f"rows of its checkpoint ({reason:.200}); patch the folder with patchc.apply and load the "
        "model again, or say in mapping= what they hold"
    )
