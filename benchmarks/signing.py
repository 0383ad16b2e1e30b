"""What signatures cost: milliseconds at build and apply, and megabytes of the install.

    python benchmarks/signing.py [--folder FOLDER] [--gigabytes 0.5] [--turns 7]

Makes a model, and a patch of one entry in a hundred. Times `sign`, `verify` and
`apply` without and with `--trusted`, and a model's bundle, as whole commands: the least of several
turns each, in turn. Then the steps alone, in one process. Then it installs the last commit into
fresh environments, without extras and with each of those that signatures need, beside the commit
before there were signatures.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from first_use import environment, run
from launch import ROOT

import patchc
from patchc.formats import open_patch
from patchc.signing.trust import demand_trust

_BEFORE = "4b7e868"
_PATCHC = [sys.executable, "-m", "patchc"]


def least(turns: int, *works: Callable[[], object]) -> list[tuple[float, float]]:
    """The least milliseconds of each piece of work, done in turn: of the clock, and of the CPU."""
    found = [(float("inf"), float("inf"))] * len(works)
    for _ in range(turns):
        for number, work in enumerate(works):
            start, used = time.perf_counter(), cpu_seconds()
            work()
            taken = 1000 * (time.perf_counter() - start), 1000 * (cpu_seconds() - used)
            found[number] = min(found[number][0], taken[0]), min(found[number][1], taken[1])
    return found


def cpu_seconds() -> float:
    """What this process and its children have used."""
    own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def command(*words: object) -> Callable[[], object]:
    """A whole command; its outputs are removed first."""
    outs = [Path(str(words[at + 1])) for at, word in enumerate(words) if word == "-o"]

    def work() -> None:
        for out in outs:
            shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
        run([*_PATCHC, *words])

    return work


def put_keys(folder: Path) -> tuple[Path, Path]:
    """An Ed25519 key for patches, and a P-256 key for models."""
    patchc.keygen(folder / "release")
    curve = folder / "model.key"
    kind = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    run(["openssl", "genpkey", *kind, "-out", curve])
    run(["openssl", "pkey", "-in", curve, "-pubout", "-out", f"{curve}.pub"])
    return folder / "release", curve


def commands(folder: Path, key: Path, curve: Path, turns: int) -> None:
    """Print the times of whole commands."""
    base, tuned, patch = folder / "case/base", folder / "case/tuned", folder / "fix.patchc"
    signed, out, bundle = folder / "signed.patchc", folder / "out", folder / "model.sig"
    patchc.diff(base, tuned, out=patch)
    patchc.sign(patch, key=key, out=signed)
    trusted = ("--trusted", f"{key}.pub")
    rows = {
        "sign": [command("sign", patch, "--key", key, "-o", folder / "again.patchc")],
        "verify, without and with --trusted": [
            command("verify", signed),
            command("verify", signed, *trusted),
        ],
        "apply, without and with --trusted": [
            command("apply", signed, base, "-o", out),
            command("apply", signed, base, "-o", out, *trusted),
        ],
        "sign-model": [command("sign-model", base, "--key", curve, "-o", bundle)],
        "verify-model": [
            command("verify-model", base, "--signature", bundle, "--trusted", f"{curve}.pub")
        ],
    }
    added = signed.stat().st_size - patch.stat().st_size
    print(f"patch {patch.stat().st_size:,} bytes; its signature adds {added:,}\n")
    print("| command | ms | of the CPU, ms |\n|---|---|---|")
    for name, works in rows.items():
        wall, cpu = zip(*least(turns, *works), strict=True)
        shown = (", ".join(f"{one:.0f}" for one in ones) for ones in (wall, cpu))
        print(f"| {name} | {' | '.join(shown)} |")


def steps(folder: Path, key: Path, turns: int) -> None:
    """Print the times of the steps within a process that has everything loaded."""
    signed = folder / "signed.patchc"
    trust = patchc.Trust(keys=f"{key}.pub")

    again = folder / "again.patchc"

    def sign() -> None:
        again.unlink(missing_ok=True)
        patchc.sign(folder / "fix.patchc", key=key, out=again)

    with open_patch(signed) as opened:
        works = {
            "open a signed patch": (lambda: open_patch(signed).__exit__(None, None, None), 20),
            "read the keys, and check its signature": (lambda: demand_trust(opened, trust), 100),
            "read the patch, sign it and write it durably": (sign, 5),
        }
        print("\n| step, in one process | ms of the CPU |\n|---|---|")
        for name, (work, times) in works.items():
            found = least(turns, lambda work=work, times=times: [work() for _ in range(times)])
            print(f"| {name} | {found[0][1] / times:.2f} |")


def installs(folder: Path) -> None:
    """Print how large fresh environments are."""
    print("\n| install | MB | s |\n|---|---|---|")
    sources = {}
    for name, commit in (("before", _BEFORE), ("now", "HEAD")):
        source = sources[name] = folder / f"source-{name}"
        source.mkdir()
        packed = folder / f"{name}.tar"
        run(["git", "-C", ROOT, "archive", "--output", packed, commit])
        run(["tar", "-x", "-f", packed, "-C", source])
    wanted = {
        f"core, before signatures ({_BEFORE})": sources["before"],
        "core, now": sources["now"],
        "patchc[sign]": f"{sources['now']}[sign]",
        "patchc[oms]": f"{sources['now']}[oms]",
    }
    for number, (name, package) in enumerate(wanted.items()):
        _, seconds, sizes = environment(folder / f"environment-{number}", package)
        print(f"| {name} | {sum(sizes.values()):.1f} | {seconds:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="for models and environments")
    parser.add_argument("--gigabytes", type=float, default=0.5)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--without-installs", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        print(f"{datetime.now(UTC):%Y-%m-%d}, {len(os.sched_getaffinity(0))} cores, ", end="")
        print(f"load {os.getloadavg()[0]:.1f} at the start")
        case = [sys.executable, Path(ROOT, "benchmarks", "synthetic.py"), folder / "case"]
        subprocess.run([*map(str, case), "--gigabytes", str(options.gigabytes)], check=True)
        key, curve = put_keys(folder)
        commands(folder, key, curve, options.turns)
        steps(folder, key, options.turns)
        if not options.without_installs:
            installs(folder)
        print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
