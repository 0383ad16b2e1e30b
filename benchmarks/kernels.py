"""Throughput of the kernels on tensors, as a share of the measured copy bandwidth of a CUDA device.

    python benchmarks/kernels.py [--entries 67108864] [--repeats 20]

Each kernel must move some bytes: every input once, every output once, at the densities given below.
Bytes over time is its throughput; a device-to-device copy, bytes read and bytes written, is what it
is held against. Exact top-k is timed beside torch.topk on the same scores. Results are compared
with what they must be before any figure is printed. Without a device, the counted bytes alone are
printed, and that nothing was timed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch

from patchc.kernels.additive_merge import DeltaEntries, add_deltas
from patchc.kernels.philox import KEEP_ALL, Retention, retention_stream, retention_threshold
from patchc.kernels.safepatching_merge import ComponentTile, RankedScores, select_changes
from patchc.kernels.snip import add_scores
from patchc.kernels.topk import TopSearch, top_mask

RETAIN, TOP = 0.3, 0.01
SECTOR = 32
"""Bytes that a device reads at the least, wherever it reads one."""
EVERYTHING = Retention(0, 0, KEEP_ALL)


@dataclass(frozen=True)
class Model:
    """The bytes that a kernel must move for each entry of a tensor, and what they are."""

    name: str
    bytes: float
    parts: str


def models() -> list[Model]:
    """The counted-bytes model: bf16 base, fp32 tuned weights and scores, 1 % density for each."""
    dense = 2 * TOP
    base, tuned = _touched(dense, 2), 2 * _touched(TOP, 4)
    output = dense * (4 + 4) * 3
    sparse = 4 + 4 + 2 * SECTOR + 2
    return [
        Model("snip, bf16", 12, "weight 2 + gradient 2 + score 4 read, 4 written"),
        Model("histogram pass", 4, "score 4"),
        Model("top-k mask, tensor", 13, "score 3 × 4, mask 1"),
        Model("top-k mask, rows", 5, "score 4 (further passes from the cache), mask 1"),
        Model(
            "fused select",
            8 + base + tuned + output,
            f"scores 2 × 4, base {base:.2f} and tuned {tuned:.2f} in the sectors that the "
            f"selection touches, changes {output:.2f} (staged, read, written)",
        ),
        Model(
            "additive, per delta",
            sparse,
            "position 4, fp32 delta 4, one sector read and one written, the word saved 2",
        ),
    ]


def _touched(density: float, size: int) -> float:
    """Bytes per entry of the sectors that hold a selected entry, selected at random."""
    per_sector = SECTOR // size
    return SECTOR * (1 - (1 - density) ** per_sector) / per_sector


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median time of a call on the device, after two that warm it up."""
    for _ in range(2):
        work()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


class Inputs:
    """Tensors of one size on the device, none of them zeros."""

    def __init__(self, entries: int) -> None:
        torch.manual_seed(1)
        self.entries = entries
        self.base = torch.randn(entries, device="cuda").bfloat16()
        self.gradients = torch.randn(entries, device="cuda").bfloat16()
        self.tuned = [self.base.float() + 0.01 * self._noise() for _ in range(2)]
        self.scores = [self._noise().abs() * self._noise().abs() for _ in range(2)]

    def _noise(self) -> torch.Tensor:
        return torch.randn(self.entries, device="cuda")

    def retention(self, name: str) -> Retention:
        return Retention(7, retention_stream(name, "t"), retention_threshold(RETAIN))


def check(inputs: Inputs) -> None:
    """Compare with the compiled loops of the CPU on a piece, and top-k with torch's.

    Raises:
        SystemExit: a result is not what it must be.
    """
    piece = slice(0, 1 << 20)
    found = _select(inputs, piece, "cuda")
    expected = _select(inputs, piece, "cpu")
    scores = inputs.scores[0]
    count = int(TOP * inputs.entries)
    mask = top_mask(scores, count, EVERYTHING)
    least = torch.topk(scores, count, sorted=False).values.min()
    equal = [torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True)]
    if not all(equal) or int(mask.sum()) != count or scores[mask].min() != least:
        raise SystemExit("a kernel's result is not what it must be; no figure is printed")


def _select(inputs: Inputs, piece: slice, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [
        _part(inputs, number, name, piece, device) for number, name in enumerate(("se", "osm"))
    ]
    found = select_changes(inputs.base[piece].to(device), parts, 0, "difference")
    return found.positions, found.steps


def _part(inputs: Inputs, number: int, name: str, piece: slice, device: str) -> ComponentTile:
    scores = inputs.scores[number][piece].to(device)
    retention = inputs.retention(name)
    search = TopSearch(int(TOP * scores.numel()), device)
    search.count_high(scores, 0, retention)
    search.narrow()
    search.count_low(scores, 0, retention)
    taken = torch.zeros(1, dtype=torch.int64, device=device)
    top = RankedScores(scores, search.cut(), taken)
    return ComponentTile(inputs.tuned[number][piece].to(device), top, retention, 1.5)


def timings(inputs: Inputs, repeats: int) -> dict[str, tuple[float, float]]:
    """Of each kernel: how many units of its model it worked on, and the seconds it took."""
    entries, whole = inputs.entries, slice(0, inputs.entries)
    totals, retention = torch.zeros_like(inputs.scores[0]), inputs.retention("se")
    search = TopSearch(int(TOP * entries), "cuda")
    parts = [_part(inputs, n, name, whole, "cuda") for n, name in enumerate(("se", "osm"))]
    row = 4096
    positions = torch.arange(0, entries, int(1 / TOP), dtype=torch.int32, device="cuda")
    deltas = DeltaEntries(positions, torch.randn(len(positions), device="cuda"), 1.5)
    words = inputs.base.clone()
    calls: dict[str, tuple[float, Callable[[], object]]] = {
        "snip, bf16": (entries, lambda: add_scores(totals, inputs.gradients, inputs.base)),
        "histogram pass": (entries, lambda: search.count_high(inputs.scores[0], 0, retention)),
        "top-k mask, tensor": (
            entries,
            lambda: top_mask(inputs.scores[0], int(TOP * entries), retention),
        ),
        "top-k mask, rows": (
            entries // row * row,
            lambda: top_mask(
                inputs.scores[0][: entries // row * row], int(TOP * row), retention, row
            ),
        ),
        "fused select": (entries, lambda: select_changes(inputs.base, parts, 0, "difference")),
        "additive, per delta": (len(positions), lambda: add_deltas(words, [deltas])),
    }
    return {name: (units, seconds(call, repeats)) for name, (units, call) in calls.items()}


def copy_bandwidth(repeats: int) -> float:
    """Bytes read and written per second by a device-to-device copy of 4 GiB."""
    source = torch.randn(1 << 30, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=1 << 26, help="scores of a tensor")
    parser.add_argument("--repeats", type=int, default=20, help="calls of which the median counts")
    options = parser.parse_args()
    for model in models():
        print(f"{model.name:20} {model.bytes:6.2f} bytes each: {model.parts}")
    if not torch.cuda.is_available():
        print("no CUDA device: nothing was timed")
        return
    inputs = Inputs(options.entries)
    check(inputs)
    copied = copy_bandwidth(options.repeats)
    print(f"{torch.cuda.get_device_name()}: copies {copied / 1e12:.2f} TB/s")
    units = {model.name: model.bytes for model in models()}
    for name, (count, took) in timings(inputs, options.repeats).items():
        rate = units[name] * count / took
        print(f"{name:20} {1e3 * took:8.3f} ms {rate / 1e12:6.2f} TB/s {rate / copied:6.1%}")
    scores, count = inputs.scores[0], int(TOP * options.entries)
    ours = seconds(lambda: top_mask(scores, count, EVERYTHING), options.repeats)
    theirs = seconds(lambda: torch.topk(scores, count, sorted=False), options.repeats)
    print(
        f"exact top-k {1e3 * ours:.3f} ms, torch.topk {1e3 * theirs:.3f} ms: {theirs / ours:.1f}×"
    )


if __name__ == "__main__":
    sys.exit(main())
