"""AdamW without weight decay, on a run of entries at a time, with fp32 or 8-bit moments.

The runs are fixed by the shapes of what is trained. Their moments can therefore lie in memory or in
a file, and the outcome is the same. AdamW is that of torch (fused), 8-bit moments are those of
bitsandbytes: blocks of 256 entries with a maximum each.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from patchc.errors import MissingExtraError
from patchc.extras import install_command

Kind = Literal["adamw", "adamw8bit"]
Fields = dict[str, Tensor]

RUN = 1 << 22
"""Entries that are updated at once."""

_BETAS = 0.9, 0.999
_EPSILON = 1e-8
_BLOCK = 256
_FEWEST_IN_8_BITS = 4096


@dataclass(frozen=True)
class Run:
    """Entries ``first`` to ``first + count`` of what is trained of the tensor ``name``."""

    name: str
    first: int
    count: int


def runs_of(sizes: Mapping[str, int]) -> Iterator[Run]:
    """Cut vectors of these sizes into runs, in order."""
    for name, size in sizes.items():
        for first in range(0, size, RUN):
            yield Run(name, first, min(RUN, size - first))


def moments(kind: Kind, count: int) -> dict[str, tuple[torch.dtype, int]]:
    """The moments of a run: by name, their dtype and number. All begin as zeros."""
    if kind == "adamw" or count < _FEWEST_IN_8_BITS:
        return {"first": (torch.float32, count), "second": (torch.float32, count)}
    blocks = -(-count // _BLOCK)
    return {
        "first": (torch.uint8, count),
        "second": (torch.uint8, count),
        "first_most": (torch.float32, blocks),
        "second_most": (torch.float32, blocks),
    }


def new_moments(kind: Kind, count: int, device: torch.device) -> Fields:
    """Make the moments of a run before its first step."""
    kinds = moments(kind, count).items()
    return {name: torch.zeros(size, dtype=dtype, device=device) for name, (dtype, size) in kinds}


def update(values: Tensor, gradient: Tensor, found: Fields, step: int, rate: float) -> None:
    """Take one step with a run, in place.

    Args:
        values: fp32, flat.
        gradient: fp32, as many.
        found: its moments, as :func:`moments` lays them out.
        step: this step's number, from 1 on.
        rate: the learning rate.
    """
    if found["first"].dtype == torch.uint8:
        _update_in_8_bits(values, gradient, found, step, rate)
        return
    with torch.no_grad():
        adamw(
            [values], [gradient], [found["first"]], [found["second"]], [],
            [torch.tensor(float(step - 1), device=values.device)],
            fused=True, amsgrad=False, beta1=_BETAS[0], beta2=_BETAS[1], lr=rate,
            weight_decay=0.0, eps=_EPSILON, maximize=False,
        )  # fmt: skip


def check_kind(kind: Kind) -> None:
    """Raises :class:`MissingExtraError` if the optimizer's package is missing."""
    if kind == "adamw8bit":
        _maps(torch.device("cpu"))


def _update_in_8_bits(
    values: Tensor, gradient: Tensor, found: Fields, step: int, rate: float
) -> None:
    from bitsandbytes.functional import optimizer_update_8bit_blockwise

    signed, unsigned = _maps(values.device)
    optimizer_update_8bit_blockwise(
        "adam", gradient, values, found["first"], found["second"], *_BETAS, 0.0, 0.0, _EPSILON,
        step, rate, signed, unsigned, found["first_most"], found["second_most"], weight_decay=0.0,
    )  # fmt: skip


@cache
def _maps(device: torch.device) -> tuple[Tensor, Tensor]:
    """The values of the 8-bit codes of first and second moments."""
    # It warns of kernels that are not used here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        from bitsandbytes.functional import create_dynamic_map
    except ImportError as error:
        raise MissingExtraError(
            "optimizer adamw8bit needs bitsandbytes; install it with "
            f"`{install_command('derive')}`, or choose adamw"
        ) from error
    signed, unsigned = create_dynamic_map(signed=True), create_dynamic_map(signed=False)
    return signed.to(device), unsigned.to(device)
