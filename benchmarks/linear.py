"""Time and peak memory of apply, revert, diff and build by the size of the model, beside `cp -r`.

    python benchmarks/linear.py [--gigabytes 1 2 4 8 14] [--folder /dev/shm] [--disk DIR]

What fits is kept in memory: base, tuned model and scores in this order, and copies where there is
room for two models. The rest goes to the disk, and every row says where its files were; the lines
are fitted to the rows in memory alone. Each size is kept in linear.json as soon as it is done, in
place of the rows of that size from before, and drawn with all others in linear.svg; without any
sizes, the picture is drawn again. Results are compared with what they must be.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from blake3 import blake3
from chart import Panel, Series, write_svg
from launch import measure, patchc
from synthetic import GIGABYTE, Synthetic, write_case

RESULTS = Path(__file__).with_name("linear.json")
SPARE = 2 * GIGABYTE
WARM_UP = 0.05  # GB; the first run of a command compiles its loops
COLOURS = {
    "cp -r": "#7f7f7f",
    "apply": "#0072b2",
    "revert": "#56b4e9",
    "apply in place": "#009e73",
    "revert in place": "#e69f00",
    "diff": "#cc79a7",
    "build": "#d55e00",
}


@dataclass(frozen=True)
class Row:
    """A command at one size: its best times, its highest peak, and where its files were."""

    command: str
    base_bytes: int
    medium: str
    seconds: float = float("inf")
    cpu_seconds: float = float("inf")
    peak_bytes: int = 0

    @property
    def gigabytes(self) -> float:
        return self.base_bytes / GIGABYTE


@dataclass(frozen=True)
class Media:
    """Two folders to work in; nothing may take what they hold below what is spared."""

    memory: Path
    disk: Path

    def free(self, folder: Path) -> int:
        """Bytes that may still be written to a folder."""
        left = shutil.disk_usage(folder).free
        if folder == self.memory:
            lines = Path("/proc/meminfo").read_text().splitlines()
            available = next(line for line in lines if line.startswith("MemAvailable"))
            left = min(left, int(available.split()[1]) * 1024)
        return left - SPARE

    def places(self, *sizes: int) -> list[Path]:
        """A folder for each of some sizes, in memory as long as they fit.

        Raises:
            OSError: there is no room for them.
        """
        chosen: list[Path] = []
        free = {folder: self.free(folder) for folder in (self.memory, self.disk)}
        for size in sizes:
            fitting = [folder for folder in free if free[folder] >= size]
            if not fitting:
                short = f"{sum(sizes) / GIGABYTE:.1f} GB fit neither {self.memory} nor {self.disk}"
                raise OSError(f"{short}, with {SPARE / GIGABYTE:.0f} GB to spare in each")
            chosen.append(fitting[0])
            free[fitting[0]] -= size
        return chosen

    def of(self, *paths: Path) -> str:
        """Where paths are: "memory", "disk" or both."""
        held = {"memory" if path.is_relative_to(self.memory) else "disk" for path in paths}
        return " and ".join(sorted(held, reverse=True))


class Run:
    """The commands at one size."""

    def __init__(self, media: Media, base_bytes: int, repeats: int) -> None:
        self._media, self._repeats = media, repeats
        base, tuned, scores = media.places(base_bytes, base_bytes, 2 * base_bytes)
        self._case = write_case(base, base_bytes, tuned_in=tuned, scores_in=scores)
        self._base, self._tuned = _digest(self._case.base), _digest(self._case.tuned)
        self._update = base / "update.patchc"
        self.rows: dict[str, Row] = {}

    def run(self) -> list[Row]:
        """Measure all commands; what is no longer needed is removed on the way."""
        case = self._case
        self._make_patches(case)
        shutil.rmtree(case.tuned)
        shutil.rmtree(case.scores)
        for _ in range(self._repeats):
            for verb, digest in (("apply", self._tuned), ("revert", self._base)):
                command = patchc(verb, self._update, case.base, "--in-place")
                self._time(f"{verb} in place", command, case.base)
                _check(case.base, digest)
        base = self._with_room_for_a_copy(case.base)
        if base:
            self._copy(base)
        else:
            print(f"no room for copies of {case.base_bytes / GIGABYTE:.1f} GB", file=sys.stderr)
        return list(self.rows.values())

    def _make_patches(self, case: Synthetic) -> None:
        fix = self._update.with_name("fix.patchc")
        tuned = ("--se", case.tuned, "--osm", case.tuned)
        scores = ("--se-scores", case.scores, "--osm-scores", case.scores)
        for _ in range(self._repeats):
            self._update.unlink(missing_ok=True)
            diff = patchc("diff", case.base, case.tuned, "-o", self._update)
            self._time("diff", diff, case.base, case.tuned)
            build = patchc("build", case.base, *tuned, *scores, "-o", fix)
            self._time("build", build, case.base, case.tuned, case.scores)
            fix.unlink()

    def _with_room_for_a_copy(self, base: Path) -> Path | None:
        """The base, moved to the disk if it has to be; None where two find no room there either."""
        media, nbytes = self._media, self._case.base_bytes
        in_memory = base.is_relative_to(media.memory)
        if media.free(media.memory if in_memory else media.disk) >= nbytes:
            return base
        if in_memory and media.free(media.disk) >= 2 * nbytes:
            return Path(shutil.move(base, media.disk / "base"))
        return None

    def _copy(self, base: Path) -> None:
        applied, out = base.with_name("applied"), base.with_name("out")
        for _ in range(self._repeats):
            for name, command, digest in (
                ("cp -r", ["cp", "-r", str(base), str(applied)], self._base),
                ("apply", patchc("apply", self._update, base, "-o", applied), self._tuned),
            ):
                shutil.rmtree(applied, ignore_errors=True)
                self._time(name, command, base)
                _check(applied, digest)
        shutil.rmtree(base)
        for _ in range(self._repeats):
            shutil.rmtree(out, ignore_errors=True)
            self._time("revert", patchc("revert", self._update, applied, "-o", out), applied)
            _check(out, self._base)

    def _time(self, name: str, command: list[str], *paths: Path) -> None:
        measured = measure(command)
        row = self.rows.get(name) or Row(name, self._case.base_bytes, self._media.of(*paths))
        self.rows[name] = replace(
            row,
            seconds=min(row.seconds, measured.seconds),
            cpu_seconds=min(row.cpu_seconds, measured.cpu_seconds),
            peak_bytes=max(row.peak_bytes, measured.peak_bytes),
        )


def measured(memory: Path, disk: Path, gigabytes: float, repeats: int) -> list[Row]:
    """The rows of one size; what was written for them is removed."""
    with (
        tempfile.TemporaryDirectory(dir=memory) as in_memory,
        tempfile.TemporaryDirectory(dir=disk) as on_disk,
    ):
        media = Media(Path(in_memory), Path(on_disk))
        try:
            return Run(media, int(gigabytes * GIGABYTE), repeats).run()
        except OSError as error:
            sys.exit(f"{gigabytes:g} GB: {error}")


def _digest(folder: Path) -> bytes:
    digests = b"".join(
        path.name.encode() + blake3(max_threads=blake3.AUTO).update_mmap(path).digest()
        for path in sorted(folder.iterdir())
    )
    return blake3(digests).digest()


def _check(found: Path, digest: bytes) -> None:
    if _digest(found) != digest:
        sys.exit(f"{found} is not what it must be: no figure is worth printing")


def line(rows: list[Row], value: str) -> tuple[float, float, float] | None:
    """Slope a gigabyte, value at 0, and the largest deviation as a share, of rows in memory."""
    held = [row for row in rows if row.medium == "memory"]
    if len(held) < 2:
        return None
    at = np.array([row.gigabytes for row in held])
    values = np.array([getattr(row, value) for row in held])
    slope, start = np.polyfit(at, values, 1)
    off = np.abs(values / (slope * at + start) - 1)
    return float(slope), float(start), float(off.max())


def keep(rows: list[Row]) -> list[Row]:
    """Add rows to those kept, in place of the same command and size, and return all."""
    kept = [Row(**row) for row in json.loads(RESULTS.read_text())] if RESULTS.exists() else []
    merged = {(row.command, row.base_bytes): row for row in [*kept, *rows]}
    order = list(COLOURS)
    every = sorted(merged.values(), key=lambda row: (order.index(row.command), row.base_bytes))
    lines = ",\n".join(json.dumps(asdict(row)) for row in every)
    RESULTS.write_text(f"[\n{lines}\n]\n")
    return every


def report(rows: list[Row]) -> None:
    """Print every row, and each command's line."""
    print(f"{'command':<17}{'GB':>7}{'wall, s':>10}{'CPU, s':>10}{'peak, MB':>10}  where")
    for row in rows:
        times = f"{row.gigabytes:>7.2f}{row.seconds:>10.2f}{row.cpu_seconds:>10.2f}"
        print(f"{row.command:<17}{times}{row.peak_bytes / 1e6:>10.0f}  {row.medium}")
    print(f"\n{'all in memory':<17}{'wall, s/GB':>12}{'off, at most':>14}{'CPU, s/GB':>12}")
    for command in COLOURS:
        own = [row for row in rows if row.command == command]
        wall, cpu = line(own, "seconds"), line(own, "cpu_seconds")
        if wall and cpu:
            print(f"{command:<17}{wall[0]:>12.2f}{wall[2]:>14.1%}{cpu[0]:>12.2f}")


def draw(rows: list[Row]) -> None:
    """Write the picture: wall time, CPU time, both of a build, and peak memory."""
    others = [command for command in COLOURS if command != "build"]
    both = [
        _series(rows, "build", "seconds", "wall"),
        replace(_series(rows, "build", "cpu_seconds", "CPU"), colour="#000000"),
    ]
    across = "base, GB"
    panels = [
        Panel("wall time, s", across, [_series(rows, c, "seconds", c) for c in others]),
        Panel("CPU time, s", across, [_series(rows, c, "cpu_seconds", c) for c in others]),
        Panel("build, s", across, both),
        Panel(
            "peak memory, MB", across, [_series(rows, c, "peak_bytes", c, 1e-6) for c in COLOURS]
        ),
    ]
    caption = "filled: all files in memory; hollow: some on the disk; lines: fitted to the filled"
    write_svg(RESULTS.with_suffix(".svg"), panels, caption)


def _series(rows: list[Row], command: str, value: str, label: str, unit: float = 1.0) -> Series:
    own = [row for row in rows if row.command == command]
    fitted = None if value == "peak_bytes" else line(own, value)
    if value == "peak_bytes":
        label = f"{label}: at most {max((row.peak_bytes for row in own), default=0) * unit:.0f}"
    elif fitted:
        label = f"{label}: {fitted[0]:.2f} s/GB"
    points = [(r.gigabytes, getattr(r, value) * unit, r.medium == "memory") for r in own]
    ends = fitted and (fitted[0] * unit, fitted[1] * unit)
    return Series(label, COLOURS[command], points, ends)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--gigabytes", type=float, nargs="*", default=(1, 2, 4, 8, 14), help="sizes of the base"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("/dev/shm"), help="a memory-backed folder"
    )
    parser.add_argument(
        "--disk", type=Path, default=Path(tempfile.gettempdir()), help="for what does not fit there"
    )
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    rows = keep([])
    if options.gigabytes:
        measured(options.folder, options.disk, WARM_UP, 1)
    for gigabytes in options.gigabytes:
        rows = keep(measured(options.folder, options.disk, gigabytes, options.repeats))
    print(f"{len(os.sched_getaffinity(0))} cores, best of {options.repeats}")
    report(rows)
    draw(rows)


if __name__ == "__main__":
    main()
