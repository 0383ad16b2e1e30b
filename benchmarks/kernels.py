"""Throughput of the kernels on tensors, as a share of the measured copy bandwidth of a CUDA device.

    python benchmarks/kernels.py [--entries 67108864] [--repeats 20] [--json FILE]

Each kernel must move some bytes: every input once, every output once, at the densities given below.
Bytes over time is its throughput; a device-to-device copy, bytes read and bytes written, is what it
is held against. Exact top-k is timed beside torch.topk on the same scores. Results are compared
with what they must be before any figure is printed. Without a device, the counted bytes alone are
printed, and that nothing was timed; ``--device cpu`` goes through all of it on the CPU, in Triton's
interpreter with TRITON_INTERPRET=1, to see that all works: its times say nothing about a device.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from figures import Figures

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


def seconds(work: Callable[[], object], repeats: int, device: str) -> float:
    """The median time of a call on the device, after two that warm it up."""
    for _ in range(2):
        work()
    timed = _on_device if device == "cuda" else _on_host
    return statistics.median(timed(work) for _ in range(repeats))


def _on_device(work: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def _on_host(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Inputs:
    """Tensors of one size on the device, none of them zeros."""

    def __init__(self, entries: int, device: str) -> None:
        torch.manual_seed(1)
        self.entries = entries
        self.device = device
        self.base = self._noise().bfloat16()
        self.gradients = self._noise().bfloat16()
        self.tuned = [self.base.float() + 0.01 * self._noise() for _ in range(2)]
        self.scores = [self._noise().abs() * self._noise().abs() for _ in range(2)]

    def _noise(self) -> torch.Tensor:
        return torch.randn(self.entries, device=self.device)

    def retention(self, name: str) -> Retention:
        return Retention(7, retention_stream(name, "t"), retention_threshold(RETAIN))


def check(inputs: Inputs) -> None:
    """Compare with the compiled loops of the CPU on a piece, and top-k with torch's.

    Raises:
        SystemExit: a result is not what it must be.
    """
    piece = slice(0, 1 << 20)
    found = _select(inputs, piece, inputs.device)
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


def timings(inputs: Inputs, repeats: int) -> Iterator[tuple[str, float, float]]:
    """Each kernel, how many units of its model it worked on, and the seconds it took."""
    entries, whole = inputs.entries, slice(0, inputs.entries)
    totals, retention = torch.zeros_like(inputs.scores[0]), inputs.retention("se")
    device = inputs.device
    search = TopSearch(int(TOP * entries), device)
    parts = [_part(inputs, n, name, whole, device) for n, name in enumerate(("se", "osm"))]
    row = 4096
    positions = torch.arange(0, entries, int(1 / TOP), dtype=torch.int32, device=device)
    deltas = DeltaEntries(positions, torch.randn(len(positions), device=device), 1.5)
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
    for name, (units, call) in calls.items():
        yield name, units, seconds(call, repeats, device)


def copy_bandwidth(repeats: int, device: str, entries: int) -> float:
    """Bytes read and written per second by a copy within the device, on a GPU of 4 GiB."""
    source = torch.randn(1 << 30 if device == "cuda" else entries, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), repeats, device)


def measure(inputs: Inputs, repeats: int, figures: Figures) -> None:
    """Print the share of the copy bandwidth that each kernel reaches, and top-k beside torch's."""
    device, entries = inputs.device, inputs.entries
    copied = copy_bandwidth(repeats, device, entries)
    name = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
    print(f"{name}: copies {copied / 1e12:.2f} TB/s")
    figures.add("copies", "within the device", terabytes_per_second=copied / 1e12)
    units = {model.name: model.bytes for model in models()}
    for name, count, took in timings(inputs, repeats):
        rate = units[name] * count / took
        print(f"{name:20} {1e3 * took:8.3f} ms {rate / 1e12:6.2f} TB/s {rate / copied:6.1%}")
        figures.add(
            "kernels",
            name,
            milliseconds=1e3 * took,
            terabytes_per_second=rate / 1e12,
            share_of_a_copy=rate / copied,
        )
    scores, count = inputs.scores[0], int(TOP * entries)
    ours = seconds(lambda: top_mask(scores, count, EVERYTHING), repeats, device)
    theirs = seconds(lambda: torch.topk(scores, count, sorted=False), repeats, device)
    print(
        f"exact top-k {1e3 * ours:.3f} ms, torch.topk {1e3 * theirs:.3f} ms: {theirs / ours:.1f}×"
    )
    figures.add(
        "exact top-k",
        "beside torch.topk",
        milliseconds=1e3 * ours,
        milliseconds_of_torch=1e3 * theirs,
        times=theirs / ours,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=1 << 26, help="scores of a tensor")
    parser.add_argument("--repeats", type=int, default=20, help="calls of which the median counts")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    for model in models():
        print(f"{model.name:20} {model.bytes:6.2f} bytes each: {model.parts}")
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: nothing was timed")
        return
    if options.device == "cpu":
        print("on the CPU: the times below say nothing about a device")
    inputs = Inputs(options.entries, options.device)
    check(inputs)
    measure(inputs, options.repeats, Figures(options.json, options.device))


if __name__ == "__main__":
    sys.exit(main())
