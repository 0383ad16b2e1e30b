"""Compact components beside whole ones, in one run: their size, and the build of the same patch.

    python benchmarks/compact_build.py [--folder /dev/shm] [--layers 2] [--repeats 3]

The components are those of `build_speed.py`, some 35 million parameters a layer. The compact ones
are written from them by the writer of `derive`. Both builds have to give the same file, or no
figure is printed. Seconds are the best of the repeats, the start-up included.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from build_speed import Best, write_case
from launch import measure, patchc
from safetensors import safe_open
from torch import Tensor

from patchc.checkpoint import open_checkpoint
from patchc.derivation.compact_output import CompactWriter
from patchc.derivation.derive_options import DIRECTIONS, DeriveOptions

SHARES = (0.2, 0.01, 0.001)


def write_compact(folder: Path, share: float) -> float:
    """Write both components of a share; gives the seconds that it took."""
    options = DeriveOptions(retain=share)
    start = time.perf_counter()
    with open_checkpoint(folder / "base") as base:
        for direction in DIRECTIONS:
            out = folder / "compact" / direction
            out.mkdir(parents=True)

            def load(stem: str, name: str, whole: Path = folder / direction) -> Tensor:
                with safe_open(whole / f"{stem}.safetensors", framework="pt") as file:
                    tensor: Tensor = file.get_tensor(name)
                return tensor

            assert options.holding is not None
            CompactWriter(out, base, options.holding, direction, options).write(
                base.tensors,
                lambda name, load=load: load("model", name),
                lambda _kind, name, load=load: load("scores", name),
            )
    return time.perf_counter() - start


def build(folder: Path, components: Path, share: float, scope: str, repeats: int) -> Best:
    out, best = folder / f"{components.name}.patchc", Best()
    shares = ("--retain", str(share), "--top-se", str(0.75 * share), "--top-osm", str(0.75 * share))
    scales = ("--alpha", "5", "--beta", "4.5")
    named = (*scales, "--se", components / "se", "--osm", components / "osm", "--scope", scope)
    for turn in range(repeats + 1):  # turn 0 compiles kernels and warms up
        out.unlink(missing_ok=True)
        run = measure(patchc("build", folder / "base", *named, *shares, "-o", out))
        best = best.with_run(run) if turn else best
    return best


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run(folder: Path, repeats: int) -> None:
    whole = size(folder / "se")
    with open_checkpoint(folder / "base") as base:
        words = sum(tensor.words for tensor in base.tensors.values())
    print(f"{words / 1e6:.0f} million parameters, {whole / 1e6:.1f} MB a whole component")
    print("| p | scope | compact, MB | a parameter | whole | compact | peak, MB |")
    for share in SHARES:
        shutil.rmtree(folder / "compact", ignore_errors=True)
        seconds = write_compact(folder, share)
        held = size(folder / "compact" / "se")
        for scope in ("tensor", "row"):
            first, second = (
                build(folder, components, share, scope, repeats)
                for components in (folder, folder / "compact")
            )
            patches = [folder / f"{name}.patchc" for name in (folder.name, "compact")]
            if patches[0].read_bytes() != patches[1].read_bytes():
                raise SystemExit("the patches differ: no figure is worth printing")
            print(
                f"| {share} | {scope} | {held / 1e6:.2f} | {held / words:.4f} B | "
                f"{first.seconds:.2f} s | {second.seconds:.2f} s | "
                f"{first.peak_bytes / 1e6:.0f}, {second.peak_bytes / 1e6:.0f} |"
            )
        print(f"  both components were written in {seconds:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        write_case(Path(scratch), given.layers, 1e-4)
        run(Path(scratch), given.repeats)


if __name__ == "__main__":
    main()
