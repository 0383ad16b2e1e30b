"""Speed of codec 3: chunk by chunk in memory, and whole commands from files to files.

    python benchmarks/codec.py [--densities 0.1 1 10] [--pair BASE TUNED] [--repeats 5]
                               [--commands] [--gigabytes 0.5 2] [--folder /dev/shm]

Chunks are 2^20 bf16 words of an update that small weights follow first, or with ``--pair`` those of
two safetensors files, spread over them. Rates are GB of base a second, best of the repeats, which
take turns over all rows, so that other work on the machine meets them alike; those of one thread
are by its CPU time, those of two, marked ``(2)``, by wall time. Every chunk is taken to the result
and back before anything is printed. With ``--commands``, ``diff``, ``apply`` and ``revert`` run on
two sizes: the slope is the throughput.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from blake3 import blake3
from launch import Measured, measure, patchc
from synthetic import GIGABYTE, Words, draw_update, write_case

from patchc.checkpoint import open_checkpoint
from patchc.dtypes import BY_NAME
from patchc.formats.codecs import CONDITIONAL
from patchc.formats.codecs.protocol import ChunkBody, ExactChanges
from patchc.formats.codecs.shortest import encode_shortest
from patchc.kernels.ulp_steps.cpu import changed_steps

DENSITIES = (0.1, 0.5, 1, 3, 5, 10, 30)
BF16 = BY_NAME["BF16"]
_CHUNK = 1 << 20
_CHUNKS = 4
_COLUMNS = ("compare", "encode", "encode (2)", "decode", "decode (2)", "apply", "apply (2)")


@dataclass
class Coded:
    """A chunk on both sides, its changes and its body."""

    base: Words
    result: Words

    def __post_init__(self) -> None:
        self.positions = np.empty(len(self.base), np.uint32)
        self.steps = np.empty(len(self.base), np.int64)
        count = self.compare()
        self.positions, self.steps = self.positions[:count].copy(), self.steps[:count].copy()
        self.codec, _, coding = encode_shortest(
            ExactChanges(self.base, self.positions, self.steps, BF16)
        )
        self.body = coding.body
        self.chunk = ChunkBody(self.body, len(self.positions), len(self.base), BF16)
        self.room = np.empty(len(self.base), np.uint32), np.empty(len(self.base), np.int64)
        self.words = self.base.copy()
        if self.codec != CONDITIONAL.id:
            sys.exit("a chunk is coded without its words; this benchmark is of codec 3")

    def compare(self) -> int:
        """Find the changes."""
        room = getattr(self, "room", (self.positions, self.steps))
        return changed_steps(self.base, self.result, True, *room)

    def encode(self) -> None:
        """Code the changes the shorter way, as a writer does."""
        encode_shortest(ExactChanges(self.base, self.positions, self.steps, BF16))

    def decode(self) -> None:
        """Read a list of the changes back."""
        CONDITIONAL.decode(self.chunk, self.base)

    def apply(self) -> None:
        """Take a copy of the words to the result."""
        self.words[:] = self.base
        CONDITIONAL.change_words(self.chunk, self.words, "result")

    def check(self) -> None:
        """Exit unless both directions are exact."""
        self.apply()
        words = self.result.copy()
        CONDITIONAL.change_words(self.chunk, words, "base")
        if not (np.array_equal(self.words, self.result) and np.array_equal(words, self.base)):
            sys.exit("a chunk did not come back: no figure is worth printing")


@dataclass
class Row:
    """Chunks of one density, and their best times by column."""

    name: str
    chunks: list[Coded]
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, pool: ThreadPoolExecutor) -> None:
        """Time every column once more."""
        for column in _COLUMNS:
            name, _, twice = column.partition(" ")
            act: Callable[[Coded], None] = getattr(Coded, name)
            clock = time.perf_counter if twice else time.thread_time
            start = clock()
            if twice:
                list(pool.map(act, self.chunks))
            else:
                for chunk in self.chunks:
                    act(chunk)
            taken = clock() - start
            self.seconds[column] = min(taken, self.seconds.get(column, taken))

    def line(self) -> str:
        """The row of the table."""
        words = sum(len(chunk.base) for chunk in self.chunks)
        changes = sum(len(chunk.positions) for chunk in self.chunks)
        bits = 8 * sum(len(chunk.body) for chunk in self.chunks)
        rates = "".join(f"{2e-9 * words / self.seconds[c]:>12.2f}" for c in _COLUMNS)
        return f"{self.name:<12}{changes / words:>8.2%}{bits / changes:>8.3f}{rates}"


def synthetic_row(percent: float) -> Row:
    """Chunks of Gaussian weights, ``percent`` of which change."""
    rng = np.random.default_rng(8)
    base, result = draw_update(rng, _CHUNKS * _CHUNK, percent / 100)
    at = range(0, len(base), _CHUNK)
    return Row("Gaussian", [Coded(base[i : i + _CHUNK], result[i : i + _CHUNK]) for i in at])


def pair_row(base: Path, tuned: Path) -> Row:
    """Chunks of 2^20 words of a pair, from its first to its last."""
    chunks = []
    with open_checkpoint(base) as one, open_checkpoint(tuned) as other:
        places = [
            (name, first)
            for name, tensor in one.tensors.items()
            for first in range(0, tensor.words - _CHUNK + 1, _CHUNK)
            if tensor.dtype == BF16
        ]
        for name, first in places[:: max(1, len(places) // _CHUNKS)][:_CHUNKS]:
            sides = np.empty(_CHUNK, np.uint16), np.empty(_CHUNK, np.uint16)
            for model, words in zip((one, other), sides, strict=True):
                model.read_words(model.tensors[name], first, words)
            if not np.array_equal(*sides):
                chunks.append(Coded(*sides))
    if not chunks:
        sys.exit(f"{tuned} does not differ from {base} in whole chunks of bf16 words")
    return Row(tuned.stem[:11], chunks)


def ground_rates(pool: ThreadPoolExecutor, repeats: int) -> str:
    """Rates of a copy and of BLAKE3, one and two threads, over chunks in memory."""
    chunks = [np.full(_CHUNK, i, np.uint16) for i in range(_CHUNKS)]
    out = [np.empty_like(chunk) for chunk in chunks]

    def copy(i: int) -> None:
        out[i][:] = chunks[i]

    def digest(i: int) -> None:
        blake3(chunks[i].view(np.uint8).data).digest()

    rates = []
    for act in (copy, digest):
        for many in (False, True):
            best = float("inf")
            for _ in range(repeats):
                start = time.perf_counter()
                list((pool.map if many else map)(act, range(_CHUNKS)))
                best = min(best, time.perf_counter() - start)
            rates.append(2e-9 * _CHUNKS * _CHUNK / best)
    return "copy {:.1f}, (2) {:.1f} GB/s; BLAKE3 {:.1f}, (2) {:.1f} GB/s".format(*rates)


def command_lines(folder: Path, sizes: list[float], percent: float, repeats: int) -> list[str]:
    """Slope between two sizes, start-up and peak memory of the commands."""
    found = [_time_commands(folder, int(size * GIGABYTE), percent / 100, repeats) for size in sizes]
    (small, least), (large, most) = found
    lines = []
    for name in small:
        slope = (most[name].seconds - least[name].seconds) / (large[name] - small[name])
        cpu = (most[name].cpu_seconds - least[name].cpu_seconds) / (large[name] - small[name])
        lines.append(
            f"{name:<10}{percent:>7.1f} %{1e-9 / slope:>12.2f}{cpu * 1e9:>14.2f}"
            f"{least[name].seconds - slope * small[name]:>12.2f}"
            f"{most[name].peak_bytes / 1e6:>10.0f}"
        )
    return lines


def _time_commands(
    folder: Path, base_bytes: int, density: float, repeats: int
) -> tuple[dict[str, int], dict[str, Measured]]:
    """Best times by command, of one size; each output takes the place of the last."""
    place = folder / "case"
    case = write_case(place, base_bytes, with_scores=False, density=density)
    update, applied, out = place / "update.patchc", place / "applied", place / "out"
    measure(patchc("diff", case.base, case.tuned, "-o", update))
    measure(patchc("apply", update, case.base, "-o", applied))
    commands = {
        "cp -r": ["cp", "-r", str(case.base), str(out)],
        "diff": patchc("diff", case.base, case.tuned, "-o", out),
        "apply": patchc("apply", update, case.base, "-o", out),
        "revert": patchc("revert", update, applied, "-o", out),
    }
    best: dict[str, Measured] = {}
    for _ in range(repeats):
        for name, command in commands.items():
            if out.is_dir():
                shutil.rmtree(out)
            else:
                out.unlink(missing_ok=True)
            found = measure(command)
            known = best.setdefault(name, found)
            known.seconds = min(known.seconds, found.seconds)
            known.cpu_seconds = min(known.cpu_seconds, found.cpu_seconds)
            known.peak_bytes = max(known.peak_bytes, found.peak_bytes)
    shutil.rmtree(place)
    return dict.fromkeys(commands, case.base_bytes), best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    memory = Path("/dev/shm")
    default = memory if memory.is_dir() else None
    parser.add_argument("--densities", type=float, nargs="*", default=DENSITIES, help="in percent")
    parser.add_argument("--pair", type=Path, nargs=2, action="append", default=[])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--commands", action="store_true", help="time whole commands too")
    parser.add_argument("--gigabytes", type=float, nargs=2, default=(0.5, 2.0), help="sizes")
    parser.add_argument("--folder", type=Path, default=default, help="a memory-backed folder")
    options = parser.parse_args()
    rows = [synthetic_row(percent) for percent in options.densities]
    rows += [pair_row(*pair) for pair in options.pair]
    with ThreadPoolExecutor(2) as pool:
        print(f"{len(os.sched_getaffinity(0))} cores; {ground_rates(pool, 4 * options.repeats)}")
        for row in rows:
            for chunk in row.chunks:
                chunk.check()
        for _ in range(options.repeats):
            for row in rows:
                row.run(pool)
    head = "".join(f"{column:>12}" for column in _COLUMNS)
    print(f"{'chunks':<12}{'density':>8}{'bits':>8}{head}")
    for row in rows:
        print(row.line())
    if options.commands:
        rates = f"{'GB/s':>12}{'CPU s/GB':>14}{'start-up, s':>12}{'MB':>10}"
        print(f"{'command':<10}{'density':>9}{rates}")
        for percent in (1.0, 5.0):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                sizes = sorted(options.gigabytes)
                for line in command_lines(Path(folder), sizes, percent, 3):
                    print(line)


if __name__ == "__main__":
    main()
