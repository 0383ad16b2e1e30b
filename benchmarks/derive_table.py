"""Plans derivations of 1, 8 and 70 billion parameters on a laptop and on two cards.

    python benchmarks/derive_table.py

prints the table of ``docs/explanation/derive.md``. The models are files of holes: the planner reads
their headers and one layer. Memory, scratch files and traffic are the planner's. Times are computed
from them with the rates below, which are assumptions, and not measured.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from derive_memory import SHAPES, Shape, write_settings

from patchc.checkpoint import open_checkpoint
from patchc.derivation.budget import Budget
from patchc.derivation.derive_options import DeriveOptions
from patchc.derivation.examples import Example
from patchc.derivation.memory_plan import Need, Work
from patchc.derivation.planning import Planner
from patchc.derivation.response_tuning import ResponseTuning
from patchc.derivation.trainer import IN_MEMORY, Workplace
from patchc.derivation.ways import choose, ways
from patchc.errors import UsageError

_TOKENS, _RESPONSE = 200, 150
_SAMPLES = 32
_PROCESS_BYTES = 650 * 10**6
"""A new process with all that a derivation imports."""


@dataclass(frozen=True)
class Machine:
    """What may be taken on a machine, and how fast it is taken to be."""

    name: str
    memory: float
    device: float
    scratch: float
    flops: float
    disk: float
    bus: float
    autocast: bool


MACHINES = (
    Machine("laptop, 16 GB", 13e9, 0, 2e12, 0.3e12, 2e9, math.inf, False),
    Machine("24 GB card, 64 GB of memory", 56e9, 22e9, 4e12, 60e12, 4e9, 20e9, True),
    Machine("80 GB card, 256 GB of memory", 230e9, 74e9, 8e12, 300e12, 6e9, 40e9, True),
)


def work_of(shape: Shape, folder: Path, autocast: bool) -> Work:
    """Let the planner look at a model of a shape."""
    base = _write_holes(folder / ("bf16" if autocast else "fp32"), shape)
    examples = [Example((5,) * (_TOKENS - _RESPONSE), (6,) * _RESPONSE)] * 64
    options = DeriveOptions(retain=0.01, score_samples=_SAMPLES)
    with open_checkpoint(base) as checkpoint:
        device = torch.device("cpu")
        place = Workplace(checkpoint, device, torch.float32, autocast, IN_MEMORY, None)
        with closing(Planner(place, ResponseTuning(examples, options), (), options)) as planner:
            return planner.work


def row(work: Work, shape: Shape, machine: Machine) -> str:
    """The columns of a machine: what is chosen and taken, or what would be needed."""
    found = list(ways(work, ["adamw", "adamw8bit"]))
    budget = Budget(int(machine.memory), int(machine.device), Path(), int(machine.scratch), False)
    try:
        need = choose(found, budget)
    except UsageError:
        return f"needs {min(way.memory_bytes for way in found) / 1e9:.1f} GB | | | | |"
    where = "scratch files" if need.layout.streams else "in memory"
    return (
        f"{where}, {need.optimizer} | {_gigabytes(need.memory_bytes)} "
        f"| {_gigabytes(need.device_bytes)} | {_gigabytes(need.scratch_bytes)} "
        f"| {_gigabytes(need.step_bytes)} | {step_seconds(work, need, shape, machine):.1f} s"
    )


def step_seconds(work: Work, need: Need, shape: Shape, machine: Machine) -> float:
    """Estimate a step: computing, the disk and the bus go on at the same time."""
    tokens = sum(load.tokens for load in work.step)
    passes = 3 if need.layout.keeps else 4
    computing = 2 * passes * shape.parameters() * tokens / machine.flops
    if not need.layout.streams:
        return computing
    # Weights in bfloat16 twice, gradients once.
    bus = 8 * shape.parameters() / machine.bus
    return max(computing, need.step_bytes / machine.disk, bus)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.{1 if size < 1e11 else 0}f} GB" if size else "0"


def _write_holes(folder: Path, shape: Shape) -> Path:
    """Write a model whose tensors are holes in its files."""
    write_settings(folder, shape)
    weight_map = {}
    for file, tensors in shape.tensors().items():
        header, end = {}, 0
        for name, size in tensors.items():
            begin, end = end, end + 2 * math.prod(size)
            header[name] = {"dtype": "BF16", "shape": size, "data_offsets": [begin, end]}
            weight_map[name] = file
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            out.truncate(8 + len(text) + end)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print("| model | machine | where | memory | card | scratch | a step moves | a step |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("1.1b", "8b", "70b"):
            shape = SHAPES[name]
            works = {
                autocast: work_of(shape, Path(folder) / name, autocast)
                for autocast in (False, True)
            }
            for machine in MACHINES:
                work = replace(
                    works[machine.autocast],
                    on_device=machine.device > 0,
                    process_bytes=_PROCESS_BYTES,
                )
                print(f"| {name.upper()} | {machine.name} | {row(work, shape, machine)} |")


if __name__ == "__main__":
    main()
