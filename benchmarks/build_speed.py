"""Rate of build, and of exact top-k, beside what one would write with torch and NumPy, in one run.

    python benchmarks/build_speed.py [--folder /dev/shm] [--millions 50 200] [--repeats 3]

`build` reads a bf16 base, two tuned models, in fp32 or bf16, and two fp32 files of scores, all
different. It runs on a small and on a large model; the slope between their best times is the rate,
what is left at size 0 is the start-up. Two kinds of tuned models: after a short derivation, whose
patch changes one entry in some hundred, and after a long one, whose patch changes nearly every
selected entry, so that coding them weighs as much as selecting them. The torch script selects and
merges the small model from memory, its reading and writing left out; it draws other entries, by
`torch.rand`.

Top-k takes 15 % of 64 Mi scores in memory; what is selected is compared before it is timed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from launch import Measured, measure, patchc
from numpy.typing import NDArray

from patchc.chunks import grid
from patchc.kernels.bitmask import unpack
from patchc.kernels.philox import KEEP_ALL, Retention
from patchc.runtime.runtime import Runtime
from patchc.selection.topk.histogram_search import ScoredTensor
from patchc.selection.topk.search import TopSearch

WIDTH, INNER = 2048, 5632
LAYER = {"gate_proj": (INNER, WIDTH), "up_proj": (INNER, WIDTH), "down_proj": (WIDTH, INNER)}
LAYER_ENTRIES = sum(map(math.prod, LAYER.values()))
POOL = 1 << 24
TUNED = {"few": (1e-7, "F32"), "few (tuned in bf16)": (1e-6, "BF16"), "many": (1e-4, "F32")}
RETAIN, TOP, ALPHA, BETA = 0.2, 0.15, 5.0, 4.5
TOP_K_SCORES = 1 << 26

Values = NDArray[np.generic]


@dataclass(frozen=True)
class Best:
    """The best of several runs, each figure on its own."""

    seconds: float = math.inf
    cpu_seconds: float = math.inf
    peak_bytes: int = 0

    def with_run(self, run: Measured) -> Best:
        return Best(
            min(self.seconds, run.seconds),
            min(self.cpu_seconds, run.cpu_seconds),
            max(self.peak_bytes, run.peak_bytes),
        )


def write_case(folder: Path, layers: int, delta: float, dtype: str = "F32") -> None:
    """Stream a base, two tuned models beside their scores; values repeat every 16 Mi entries.

    Scores of a row are alike, as gradients make them: each row has a scale of its own.
    """
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(POOL, np.float32) * np.float32(0.02)
    words = (weights.view(np.uint32) >> 16).astype(np.uint16)
    exact = (words.astype(np.uint32) << 16).view(np.float32)
    _write(folder / "base", "model", words, "BF16", layers)
    for name in ("se", "osm"):
        tuned = exact + rng.standard_normal(POOL, np.float32) * np.float32(delta)
        held = tuned if dtype == "F32" else _to_bf16(tuned)
        _write(folder / name, "model", held, dtype, layers)
        scores = rng.standard_exponential(POOL, np.float32)
        rows = np.exp(0.7 * rng.standard_normal(POOL // WIDTH, np.float32))
        scores *= np.repeat(rows, WIDTH)
        _write(folder / name, "scores", scores, "F32", layers)


def _to_bf16(values: NDArray[np.float32]) -> Values:
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def _write(folder: Path, stem: str, pool: Values, dtype: str, layers: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    header, at = {}, 0
    for name, shape in _tensors(layers):
        end = at + pool.itemsize * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / f"{stem}.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for number, (_, shape) in enumerate(_tensors(layers)):
            count = math.prod(shape)
            start = number * 1_000_003 % (POOL - count)
            file.write(pool[start : start + count].data)


def _tensors(layers: int) -> Iterator[tuple[str, tuple[int, int]]]:
    for layer in range(layers):
        for name, shape in LAYER.items():
            yield f"model.layers.{layer}.mlp.{name}.weight", shape


def time_build(folder: Path, repeats: int) -> Best:
    out = folder / "fix.patchc"
    inputs = ("--se", folder / "se", "--osm", folder / "osm")
    best = Best()
    for turn in range(repeats + 1):  # turn 0 compiles kernels and warms up
        run = measure(patchc("build", folder / "base", *inputs, "-o", out))
        best = best.with_run(run) if turn else best
        out.unlink()
    return best


def time_torch(folder: Path, repeats: int) -> float:
    """Entries a second of the script that a user would write, on whole tensors in memory."""
    import torch
    from safetensors.torch import load_file

    base = load_file(folder / "base" / "model.safetensors")
    tuned = [load_file(folder / name / "model.safetensors") for name in ("se", "osm")]
    scores = [load_file(folder / name / "scores.safetensors") for name in ("se", "osm")]

    def merge(name: str) -> torch.Tensor:
        origin = base[name].float()
        kept = [torch.rand(origin.shape) < RETAIN for _ in tuned]
        tops = []
        for own, mask in zip(scores, kept, strict=True):
            ranked = torch.where(mask, own[name], -1.0).flatten()
            chosen = torch.zeros(ranked.shape, dtype=torch.bool)
            chosen[torch.topk(ranked, int(TOP * ranked.numel()), sorted=False).indices] = True
            tops.append(chosen.view(origin.shape) & mask)
        se, osm = tops[0] & ~tops[1], tops[1] & ~tops[0]
        total = origin + ALPHA * (se * (tuned[0][name] - origin))
        return (total + BETA * (osm * (tuned[1][name] - origin))).to(base[name].dtype)

    def merge_all() -> None:
        for name in base:
            merge(name)

    return sum(one.numel() for one in base.values()) / _best(merge_all, repeats)


def time_top_k(repeats: int) -> dict[str, float]:
    """Seconds for the top 15 % by patchc, np.partition and torch.topk."""
    import torch

    scores = np.random.default_rng(1).standard_exponential(TOP_K_SCORES, np.float32)
    count = int(TOP * scores.size)
    bits = scores.view(np.uint32)
    chunks = grid(scores.size, 1 << 20)
    everything = Retention(0, 0, KEEP_ALL)
    tensor = ScoredTensor(
        "scores", lambda chunk: bits[chunk.first : chunk.first + chunk.count], chunks, everything
    )
    with Runtime() as runtime:
        (top,) = TopSearch([tensor], count, runtime).result()
        marks = top.marks or ()
        mask = np.concatenate([unpack(m, c.count) for m, c in zip(marks, chunks, strict=True)])
        cut = np.partition(scores, scores.size - count)[scores.size - count]
        if np.count_nonzero(mask) != count or scores[mask].min() < cut:
            raise SystemExit("the top set is not the top set: no figure is worth printing")
        ours = _best(lambda: TopSearch([tensor], count, runtime).result(), repeats)
    return {
        "patchc": ours,
        "np.partition": _best(lambda: np.partition(scores, scores.size - count), repeats),
        "torch.topk": _best(lambda: torch.topk(torch.from_numpy(scores), count), repeats),
        "torch.topk, unsorted": _best(
            lambda: torch.topk(torch.from_numpy(scores), count, sorted=False), repeats
        ),
    }


def _best(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    memory = Path("/dev/shm")
    default = memory if memory.is_dir() else None
    parser.add_argument("--folder", type=Path, default=default, help="a memory-backed folder")
    parser.add_argument("--millions", type=int, nargs=2, default=(50, 200), help="parameters")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    layers = [max(1, round(m * 1e6 / LAYER_ENTRIES)) for m in sorted(options.millions)]
    entries = [count * LAYER_ENTRIES for count in layers]
    print(f"{len(os.sched_getaffinity(0))} threads, best of {options.repeats}")
    torch_rate = 0.0
    for kind, (delta, dtype) in TUNED.items():
        best = []
        for count in layers:
            with tempfile.TemporaryDirectory(dir=options.folder) as name:
                folder = Path(name) / "case"
                write_case(folder, count, delta, dtype)
                best.append(time_build(folder, options.repeats))
                if count == layers[0] and not torch_rate:
                    torch_rate = time_torch(folder, options.repeats)
                shutil.rmtree(folder)
        grown = entries[1] - entries[0]
        slope = (best[1].seconds - best[0].seconds) / grown
        cpu = (best[1].cpu_seconds - best[0].cpu_seconds) / grown
        print(
            f"build, {kind} changes: {1e-6 / slope:.0f} M parameters/s, {cpu * 1e9:.1f} ns CPU a "
            f"parameter, start-up {best[0].seconds - slope * entries[0]:.2f} s, "
            f"peak {max(one.peak_bytes for one in best) / 1e6:.0f} MB"
        )
    print(f"torch script, in memory: {torch_rate / 1e6:.1f} M parameters/s")
    for name, seconds in time_top_k(options.repeats).items():
        print(f"top {TOP:.0%} of {TOP_K_SCORES >> 20} Mi scores, {name}: {seconds:.3f} s")


if __name__ == "__main__":
    main()
