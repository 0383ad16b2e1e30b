"""The live hot patch: time to prepare and to commit, beside the bytes that each has to move.

    python benchmarks/hot_patch.py [--gigabytes 13.5] [--folder /dev/shm] [--json FILE]

On a CUDA device: a synthetic decoder in bf16 of the size of a 7B model, one entry in a hundred
moved by one unit in the last place, loaded to the device. Without one: 0.2 GB on the CPU, to see
that all works; its times say nothing about a device. The patched memory is compared with the
tuned checkpoint before any figure is printed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from figures import Figures
from launch import measure
from launch import patchc as command
from safetensors.torch import load_file
from synthetic import GIGABYTE, write_case

import patchc.torch as live
from patchc.kernels.ulp_steps.triton import BLOCK

SECTOR = 32
"""Bytes that a GPU's memory moves at least."""


@dataclass(frozen=True)
class Counted:
    """Bytes that have to move, from the shapes alone."""

    commit: int
    read_back: int
    hashed: int


def count(words: int, changed: int, nbytes: int) -> Counted:
    """The least traffic of a commit and of a preparation of bf16 words.

    A commit reads ``nbytes`` of positions and steps and a table of 32 bytes a block, and reads
    and writes every sector in which a word changes; changes are taken to lie at random. A
    preparation copies every word to the CPU, and hashes it before the change and after.
    """
    in_sector = SECTOR // 2
    touched = words / in_sector * (1 - (1 - changed / words) ** in_sector)
    table = changed / BLOCK * 32
    return Counted(int(nbytes + table + 2 * SECTOR * touched), 2 * words, 4 * words)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until a call's effects are there."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of a copy of 1 GiB within the device."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = min(timed(lambda: target.copy_(source), device) for _ in range(5))
    return 2 * source.numel() / best


def load(folder: Path, device: torch.device) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        state |= load_file(shard, device=str(device))
    return state


def check(state: dict[str, torch.Tensor], folder: Path) -> None:
    for shard in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(shard).items():
            if not torch.equal(state[name].cpu().view(torch.int16), tensor.view(torch.int16)):
                raise SystemExit(f"{name} is not as it must be: no figure is worth printing")


def run(
    folder: Path, base_bytes: int, device: torch.device, repeats: int, figures: Figures
) -> None:
    case = write_case(folder, base_bytes, with_scores=False)
    update = folder / "update.patchc"
    measure(command("diff", case.base, case.tuned, "-o", update))
    state = load(case.base, device)
    words = sum(tensor.numel() for tensor in state.values())
    live.prepare(state, update)  # compiles, and reads the files into memory
    print(
        f"{words / 1e9:.2f} billion bf16 words on {device}, patch {update.stat().st_size:,} bytes"
    )
    figures.add("model", str(device), billion_words=words / 1e9, patch_bytes=update.stat().st_size)
    for label, options in (("live words read back", {}), ("not verified", {"base": case.base})):
        prepares, commits = [], []
        for _ in range(repeats):
            prepared = []
            work = lambda options=options, prepared=prepared: prepared.append(  # noqa: E731
                live.prepare(state, update, verify=not options, **options)
            )
            prepares.append(timed(work, device))
            commits.append(timed(prepared[0].apply_, device))
            if len(commits) == 1:
                check(state, case.tuned)
            commits.append(timed(prepared[0].revert_, device))
        check(state, case.base)
        report = prepared[0].report
        print(
            f"{label}: prepare {min(prepares):.3f} s, commit median "
            f"{1e3 * statistics.median(commits):.2f} ms, best {1e3 * min(commits):.2f} ms; "
            f"{report.launches} launches, {report.changed_words:,} words, {report.nbytes:,} bytes"
        )
        figures.add(
            "hot patch",
            label,
            prepare_seconds=min(prepares),
            commit_milliseconds=1e3 * statistics.median(commits),
            best_commit_milliseconds=1e3 * min(commits),
        )
    counted = count(words, report.changed_words, report.nbytes)
    bandwidth = copy_bandwidth(device)
    print(
        f"counted: commit moves {counted.commit / 1e9:.2f} GB, at the measured copy bandwidth of "
        f"{bandwidth / 1e9:.0f} GB/s {1e3 * counted.commit / bandwidth:.2f} ms; prepare reads back "
        f"{counted.read_back / 1e9:.2f} GB and hashes {counted.hashed / 1e9:.2f} GB"
    )
    figures.add(
        "counted",
        "commit",
        gigabytes=counted.commit / 1e9,
        copy_gigabytes_per_second=bandwidth / 1e9,
        milliseconds_at_that_rate=1e3 * counted.commit / bandwidth,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    on_device = torch.cuda.is_available()
    parser.add_argument("--gigabytes", type=float, default=13.5 if on_device else 0.2)
    memory = Path("/dev/shm")
    parser.add_argument("--folder", type=Path, default=memory if memory.is_dir() else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    device = torch.device("cuda", 0) if on_device else torch.device("cpu")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures = Figures(options.json, device.type)
        run(Path(folder), int(options.gigabytes * GIGABYTE), device, options.repeats, figures)


if __name__ == "__main__":
    main()
