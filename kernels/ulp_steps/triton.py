"""Steps added on a device: one launch over a table of addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from patchc.kernels.launch import BLOCK, OPTIONS
from patchc.kernels.ulp_steps import StepRun
from patchc.sides import Side

_TYPES = {torch.int8: tl.int8, torch.int16: tl.int16, torch.int32: tl.int32, torch.int64: tl.int64}


def _add_steps(  # type: ignore[no-untyped-def]  # Triton reads the annotations
    table, sign,
    word_type: tl.constexpr, step_type: tl.constexpr, bits: tl.constexpr,
    total_order: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Row p of ``table``, int64: addresses of words, positions and steps, and how many steps.

    ``bits`` is the width of a word.
    """
    row = table + tl.program_id(0) * 4
    words = tl.load(row).to(tl.pointer_type(word_type))
    positions = tl.load(row + 1).to(tl.pointer_type(tl.int32))
    steps = tl.load(row + 2).to(tl.pointer_type(step_type))
    lane = tl.arange(0, block)
    inside = lane < tl.load(row + 3)
    places = words + tl.load(positions + lane, mask=inside, other=0)
    order = tl.load(places, mask=inside, other=0).to(tl.int64)
    step = tl.load(steps + lane, mask=inside, other=0).to(tl.int64)
    magnitude: tl.constexpr = (1 << (bits - 1)) - 1
    if total_order:
        order ^= (order >> 63) & magnitude
    order = (order + step * sign).to(word_type).to(tl.int64)
    if total_order:
        order ^= (order >> 63) & magnitude
    tl.store(places, order.to(word_type), mask=inside)


add_steps_kernel: Any = triton.jit(_add_steps, do_not_specialize=["sign"])


def on_device(group: list[StepRun]) -> Callable[[Side], None]:
    """Compile and upload what adds the steps of runs that share device and types.

    The caller keeps the runs alive.
    """
    first = group[0]
    rows = np.concatenate([_rows(run) for run in group])
    table = torch.from_numpy(rows).to(first.words.device)
    bits = 8 * first.words.element_size()
    types = _TYPES[first.words.dtype], _TYPES[first.steps.dtype], bits, first.total_order

    def launch(table: torch.Tensor, sign: int) -> None:
        with torch.cuda.device_of(table):  # type: ignore[no-untyped-call]
            add_steps_kernel[(len(table),)](table, sign, *types, block=BLOCK, **OPTIONS)

    def add(target: Side) -> None:
        launch(table, -1 if target == "base" else 1)

    nothing = torch.zeros_like(table[:1])
    launch(nothing, 1)
    return add


def _rows(run: StepRun) -> NDArray[np.int64]:
    count = run.positions.numel()
    starts = np.arange(0, count, BLOCK)
    rows = np.empty((len(starts), 4), np.int64)
    rows[:, 0] = run.words.data_ptr()
    rows[:, 1] = run.positions.data_ptr() + starts * run.positions.element_size()
    rows[:, 2] = run.steps.data_ptr() + starts * run.steps.element_size()
    rows[:, 3] = np.minimum(count - starts, BLOCK)
    return rows
