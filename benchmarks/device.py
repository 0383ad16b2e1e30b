"""Build and apply of a large checkpoint on a CUDA device, beside the slowest pipe that feeds it.

    python benchmarks/device.py [--gigabytes 13.5] [--folder /dev/shm] [--memory 8] [--json FILE]

A synthetic decoder in bf16 of the size of a 7B model, in a memory-backed folder (60 GB there), is
streamed through at most ``--memory`` gigabytes of the device: a SafePatching build, and an apply of
additive values. The rates of the pipes are measured first: reading files into reused buffers,
writing new ones, pinned copies to the device and back. What the slowest of them would take for the
bytes that have to pass it is held against the time taken. Files are compared with those of the CPU
before any figure is printed. A small model goes first, so that kernels are compiled.

Without a device: 0.1 GB, and tensors that stay in the host's memory, to see that all works; its
times say nothing about a device.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from figures import Figures
from synthetic import GIGABYTE, Synthetic, write_case

import patchc
from patchc.runtime.device import computing_on
from patchc.runtime.device_pool import DevicePool

BLOCK = 1 << 22
COPY = 1 << 28
WARM_UP = 50_000_000
WRITTEN = 1 << 32


@dataclass(frozen=True)
class Pipes:
    """Bytes a second."""

    read: float
    write: float
    upload: float
    download: float

    def seconds(self, **nbytes: float) -> tuple[float, str]:
        """The slowest pipe for so many bytes through each: its time and its name."""
        return max((count / getattr(self, name), name) for name, count in nbytes.items())


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_pipes(case: Synthetic, folder: Path, threads: int, device: torch.device) -> Pipes:
    files = [*case.base.glob("*.safetensors"), *case.scores.glob("*.safetensors")]
    blocks = [(path, at) for path in files for at in range(0, path.stat().st_size, BLOCK)]
    size = sum(path.stat().st_size for path in files)
    written = min(WRITTEN, size) // BLOCK * BLOCK
    target = folder / "written"
    buffers = [np.ones(BLOCK, np.uint8) for _ in range(threads)]

    def share(work: Callable[[int], None]) -> float:
        with ThreadPoolExecutor(threads) as pool:
            return seconds(lambda: list(pool.map(work, range(threads))))

    def read(number: int) -> None:
        for path, at in blocks[number::threads]:
            with path.open("rb", buffering=0) as file:
                os.preadv(file.fileno(), [buffers[number].data], at)

    def write(number: int) -> None:
        with target.open("r+b", buffering=0) as file:
            for at in range(number * BLOCK, written, threads * BLOCK):
                os.pwrite(file.fileno(), buffers[number].data, at)

    target.write_bytes(b"")
    reading, writing = size / share(read), written / share(write)
    target.unlink()
    pinned = torch.ones(COPY, dtype=torch.uint8, pin_memory=device.type == "cuda")
    there = torch.empty(COPY, dtype=torch.uint8, device=device)
    rates = []
    for to, source in ((there, pinned), (pinned, there)):

        def copy(to: torch.Tensor = to, source: torch.Tensor = source) -> None:
            to.copy_(source, non_blocking=True)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        rates.append(COPY / min(seconds(copy) for _ in range(5)))
    return Pipes(reading, writing, *rates)


def entries_of(patch: Path) -> int:
    additive = patchc.inspect(patch).additive
    return sum(part.entries for part in additive.components) if additive else 0


class Run:
    """One case, built and applied on the CPU and on the device; both must agree."""

    def __init__(self, case: Synthetic, folder: Path, options: argparse.Namespace) -> None:
        self.case = case
        self.folder = folder
        self.threads = options.threads
        self.staging = DevicePool(options.device, int(options.memory * GIGABYTE))

    def build(self, chunk_bits: int) -> dict[str, float]:
        """Seconds by where the patch was built."""
        took = {}
        for where, place in self._places():
            out = self.folder / f"{where}.patchc"
            with place:
                took[where] = seconds(lambda out=out: self._build(out, chunk_bits=chunk_bits))
        written = [self.folder / f"{where}.patchc" for where in took]
        self._compare(written)
        for path in written:
            path.unlink()
        return took

    def build_additive(self, chunk_bits: int) -> Path:
        """A patch of additive values, for :meth:`apply`; the scores are of no use afterwards."""
        patch = self.folder / "additive.patchc"
        self._build(patch, values="additive", chunk_bits=chunk_bits)
        shutil.rmtree(self.case.scores)
        return patch

    def apply(self, patch: Path) -> dict[str, float]:
        """Seconds by where additive values were added."""
        took = {}
        for where, place in self._places():
            out = self.folder / where
            with place:
                took[where] = seconds(
                    lambda out=out: patchc.apply(
                        patch, self.case.base, out=out, threads=self.threads
                    )
                )
        for path in (self.folder / "cpu").glob("*.safetensors"):
            self._compare([path, self.folder / "device" / path.name])
        return took

    def _places(self) -> Iterable[tuple[str, AbstractContextManager[None]]]:
        return (("cpu", nullcontext()), ("device", computing_on(self.staging)))

    def _build(self, out: Path, **options: object) -> None:
        case = self.case
        parts = {"se": case.tuned, "osm": case.tuned, "se_scores": case.scores}
        patchc.build(
            case.base,
            **parts,
            osm_scores=case.scores,
            out=out,
            threads=self.threads,
            **options,
        )

    @staticmethod
    def _compare(files: list[Path]) -> None:
        if not filecmp.cmp(*files, shallow=False):
            raise SystemExit(
                f"{files[0].name} differs from {files[1]}: no figure is worth printing"
            )


def report(name: str, took: dict[str, float], least: float, pipe: str, figures: Figures) -> None:
    share = least / took["device"]
    print(
        f"{name}: device {took['device']:.2f} s, CPU alone {took['cpu']:.2f} s; the slowest pipe "
        f"({pipe}) would take {least:.2f} s: {share:.0%}"
    )
    figures.add(
        "through the device",
        name,
        device_seconds=took["device"],
        cpu_seconds=took["cpu"],
        slowest_pipe=pipe,
        seconds_of_that_pipe=least,
        share_of_that_pipe=share,
    )


def run(folder: Path, options: argparse.Namespace, figures: Figures) -> None:
    (folder / "small").mkdir()
    base_bytes = int(options.gigabytes * GIGABYTE)
    warm_up = write_case(folder / "small", min(WARM_UP, base_bytes))
    small = Run(warm_up, folder / "small", options)
    for bits in options.chunk_bits:
        small.build(bits)
    small.apply(small.build_additive(options.chunk_bits[0]))
    shutil.rmtree(folder / "small")

    case = write_case(folder / "case", base_bytes)
    pipes = measure_pipes(case, folder, options.threads, torch.device(options.device))
    print(
        f"{case.base_bytes / 2e9:.2f} billion words, {options.threads} threads; GB/s: read "
        f"{pipes.read / 1e9:.1f}, write {pipes.write / 1e9:.1f}, to the device "
        f"{pipes.upload / 1e9:.1f}, back {pipes.download / 1e9:.1f}"
    )
    figures.add(
        "pipes",
        "GB/s",
        threads=options.threads,
        **{name: rate / 1e9 for name, rate in asdict(pipes).items()},
    )
    large = Run(case, folder, options)
    # Of each candidate entry: two bf16 tuned words and two fp32 scores, and the base's own word.
    inputs = (2 * 2 + 2 * 4) * case.candidate_entries
    uploaded = inputs + 2 * case.candidate_entries
    least = pipes.seconds(read=case.base_bytes + inputs, upload=uploaded)
    for bits in options.chunk_bits:
        name = f"build, chunks of 2^{bits} words"
        report(name, large.build(bits), *least, figures)
    patch = large.build_additive(options.chunk_bits[0])
    there = 2 * case.candidate_entries
    least = pipes.seconds(
        read=case.base_bytes,
        upload=there + 8 * entries_of(patch),
        download=there,
        write=case.base_bytes,
    )
    report("apply, additive", large.apply(patch), *least, figures)
    if options.device == "cuda":
        peak = torch.cuda.max_memory_reserved() / GIGABYTE
        print(f"device memory: at most {peak:.2f} GB, of {options.memory} allowed")
        figures.add("device memory", "most", gigabytes=peak, gigabytes_allowed=options.memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    on_device = torch.cuda.is_available()
    memory = Path("/dev/shm")
    parser.add_argument("--gigabytes", type=float, default=13.5 if on_device else 0.1)
    parser.add_argument("--folder", type=Path, default=memory if memory.is_dir() else None)
    parser.add_argument("--memory", type=float, default=8.0, help="GB of the device")
    parser.add_argument("--chunk-bits", type=int, nargs="+", default=[20])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    options.device = "cuda" if on_device else "cpu"
    if not on_device:
        print("no CUDA device: the times below say nothing about one")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        run(Path(folder), options, Figures(options.json, options.device))


if __name__ == "__main__":
    main()
