"""Steps between floats in units in the last place (ULP): taken, added, composed, scattered.

A float's word maps to its IEEE total-order integer: where the sign bit is set, the magnitude bits
are flipped, and the whole is read as two's complement; −0 and +0 stay distinct and NaN payloads
survive. The map is its own inverse. Other dtypes are raw integers. A step is the difference modulo
2^width in its signed form, so that adding and then subtracting it restores every bit.

This module adds steps to torch tensors in place, in memory or on a device. It needs no torch
itself, and Triton only where words lie on a device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchc.dtypes import Words
from patchc.errors import MissingExtraError
from patchc.kernels.ulp_steps.cpu import add_steps
from patchc.sides import Side

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class StepRun:
    """Steps of words that lie one after the other.

    Attributes:
        words: one-dimensional and contiguous, of a signed integer type of the word's width; the
            memory that is changed.
        positions: int32, on the same device; distinct and inside ``words``.
        steps: as many, of any signed integer type.
        total_order: whether words are floats, whose steps count in IEEE's total order.
    """

    words: torch.Tensor
    positions: torch.Tensor
    steps: torch.Tensor
    total_order: bool


@dataclass(frozen=True)
class Launch:
    """Steps that are added at once; ``add("base")`` takes them back.

    On a CUDA device ``add`` returns as soon as the work is queued on the current stream. ``runs``
    are what its addresses point to.
    """

    device: torch.device
    runs: Sequence[StepRun]
    add: Callable[[Side], None]


def launches(runs: Sequence[StepRun]) -> list[Launch]:
    """Prepare the addition of steps: one launch for each device and combination of types.

    All is compiled and uploaded here, so that a launch allocates nothing and cannot fail for
    reasons of its own.

    Raises:
        MissingExtraError: words are on a device and Triton is not installed.
    """
    groups: dict[tuple[object, ...], list[StepRun]] = {}
    for run in runs:
        if run.positions.numel():
            types = run.words.device, run.words.dtype, run.steps.dtype, run.total_order
            groups.setdefault(types, []).append(run)
    return [Launch(group[0].words.device, group, _prepare(group)) for group in groups.values()]


def _prepare(group: list[StepRun]) -> Callable[[Side], None]:
    if group[0].words.is_cpu:
        return _on_cpu(group)
    try:
        from patchc.kernels.ulp_steps.triton import on_device
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"patching on {group[0].words.device} needs Triton; install it: "
            "pip install 'patchc[gpu]'"
        ) from error
    return on_device(group)


def _on_cpu(group: list[StepRun]) -> Callable[[Side], None]:
    total_order = group[0].total_order
    arrays = [(_unsigned(run.words), run.positions.numpy(), run.steps.numpy()) for run in group]

    def add(target: Side) -> None:
        for words, positions, steps in arrays:
            add_steps(words, positions, steps, total_order, target == "base")

    words, positions, steps = arrays[0]
    add_steps(words, positions[:0], steps[:0], total_order, False)
    return add


def _unsigned(words: torch.Tensor) -> Words:
    array = words.numpy()
    return array.view(f"u{array.itemsize}")
