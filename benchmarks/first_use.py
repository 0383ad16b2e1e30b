"""What a newcomer waits for: the install, the first run of each command, the next one.

    python benchmarks/first_use.py [--folder FOLDER] [--torch torch==2.13.0] [--without-peers]

Makes fresh environments from the wheel and from the source archive of the last commit, and checks
there that every command answers and that the core works without torch. Then it prints what the
install takes, and the seconds of the first and second `apply` and `build`: with nothing compiled,
and after `patchc warm-up`. In the same run, mergekit and the hub's client answer `--help`, each in
an environment of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from launch import ROOT

_PEERS = {"mergekit-yaml": "mergekit==0.1.5", "hf": "huggingface_hub"}
_GIGABYTES = "0.05"
_NAMES = "from patchc.cli.main import _COMMANDS; print(*_COMMANDS)"


def run(command: list[object], cache: Path | None = None, fails: bool = False) -> tuple[float, str]:
    """Run a command; return its seconds and what it printed."""
    variables = {"PATCHC_CACHE": cache, "XDG_CACHE_HOME": cache.with_name("none")} if cache else {}
    start = time.perf_counter()
    done = subprocess.run(
        [str(part) for part in command],
        env=os.environ | {name: str(path) for name, path in variables.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if bool(done.returncode) != fails:
        sys.exit(f"{command} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return seconds, done.stdout


def environment(folder: Path, *packages: object) -> tuple[Path, float, dict[str, float]]:
    """Make an environment; return its programs, the seconds of the install, and MB by package."""
    run([sys.executable, "-m", "venv", folder])
    programs, (site,) = folder / "bin", folder.glob("lib/*/site-packages")
    before = {path.name for path in site.iterdir()}
    seconds = 0.0
    for package in packages:
        pip = [programs / "pip", "install", "--quiet", "--disable-pip-version-check", package]
        seconds += run(pip)[0]
    sizes = {path.name: size(path) for path in site.iterdir() if path.name not in before}
    return programs, seconds, sizes


def size(path: Path) -> float:
    """Size of a file or folder in MB."""
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.lstat().st_size for one in files) / 1e6


def archives(folder: Path) -> list[Path]:
    """The wheel and the source archive of the last commit."""
    source, out = folder / "source", folder / "archives"
    source.mkdir()
    packed = folder / "source.tar"
    run(["git", "-C", ROOT, "archive", "--output", packed, "HEAD"])
    run(["tar", "-x", "-f", packed, "-C", source])
    tools, *_ = environment(folder / "tools", "build")
    run([tools / "python", "-m", "build", "--outdir", out, source])
    return sorted(out.iterdir(), reverse=True)


def check(programs: Path, case: Path, work: Path, cache: Path) -> None:
    """Run every command's help, and all that the core does, without torch."""
    patchc = programs / "patchc"
    run([programs / "python", "-c", "import torch"], fails=True)
    for name in run([programs / "python", "-c", _NAMES])[1].split():
        run([patchc, name, "--help"])
    base, tuned, scores = (case / name for name in ("base", "tuned", "scores"))
    there, back, fix, both = (work / f"{name}.patchc" for name in ("there", "back", "fix", "both"))
    se = ["--se", tuned, "--osm", tuned, "--se-scores", scores, "--osm-scores", scores]
    run([patchc, "diff", base, tuned, "-o", there], cache)
    run([patchc, "diff", tuned, base, "-o", back], cache)
    run([patchc, "fold", there, back, "--base", base, "-o", both], cache)
    run([patchc, "build", base, *se, "--beta", "1", "-o", fix], cache)
    run([patchc, "inspect", fix], cache)
    run([patchc, "apply", there, base, "-o", work / "applied"], cache)
    run([patchc, "verify", there, work / "applied"], cache)
    run([patchc, "revert", there, work / "applied", "-o", work / "reverted"], cache)
    for one in base.glob("*.safetensors"):
        if one.read_bytes() != (work / "reverted" / one.name).read_bytes():
            sys.exit(f"{one.name} came back changed: no figure is worth printing")


def waits(programs: Path, case: Path, work: Path, cache: Path) -> dict[str, tuple[float, float]]:
    """Seconds of the first and of the second run, with this cache."""
    patchc, base, tuned, scores = (
        programs / "patchc",
        case / "base",
        case / "tuned",
        case / "scores",
    )
    se = ["--se", tuned, "--osm", tuned, "--se-scores", scores, "--osm-scores", scores]
    commands = {
        "apply": [patchc, "apply", work / "there.patchc", base],
        "build": [patchc, "build", base, *se, "--beta", "1"],
    }
    found = {}
    for name, command in commands.items():
        own = cache if cache.exists() else cache.with_name(f"{cache.name}-{name}")
        outs = [work / f"{cache.name}-{name}-{turn}" for turn in (1, 2)]
        first, second = (run([*command, "-o", out], own)[0] for out in outs)
        found[name] = first, second
    return found


def report(
    kind: str, programs: Path, seconds: float, sizes: dict[str, float], folder: Path
) -> None:
    """Check an installation, and print its rows."""
    case, work = folder / "case", folder / f"work-{kind}"
    work.mkdir()
    if not case.exists():
        made = [programs / "python", Path(ROOT, "benchmarks", "synthetic.py"), case]
        run([*made, "--gigabytes", _GIGABYTES])
    check(programs, case, work, work / "checked")
    total = sum(sizes.values())
    print(f"| install from the {kind} | {seconds:.1f} s, {total:.0f} MB | |")
    cold = waits(programs, case, work, work / "cold")
    warm = work / "warm"
    warmed, _ = run([programs / "patchc", "warm-up", "apply", "build"], warm)
    after = waits(programs, case, work, warm)
    for name, (first, second) in cold.items():
        print(f"| {name}, nothing compiled | {first:.1f} s | {second:.2f} s |")
    print(f"| warm-up apply build | {warmed:.1f} s | |")
    for name, (first, second) in after.items():
        print(f"| {name}, after warm-up | {first:.2f} s | {second:.2f} s |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="for environments and models")
    parser.add_argument("--torch", default="torch==2.13.0", help="that mergekit gets")
    parser.add_argument("--without-peers", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        wheel, source = archives(folder)
        print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the start")
        print("| | first | second |\n|---|---|---|")
        shown: dict[str, float] = {}
        for kind, archive in (("wheel", wheel), ("source archive", source)):
            programs, seconds, sizes = environment(folder / archive.suffix[1:], archive)
            report(kind, programs, seconds, sizes, folder)
            shown = shown or sizes
        for program, package in {} if options.without_peers else _PEERS.items():
            needs = [options.torch] if program == "mergekit-yaml" else []
            programs, seconds, sizes = environment(folder / program, *needs, package)
            first, second = (run([programs / program, "--help"])[0] for _ in range(2))
            print(f"| {program} --help | {first:.2f} s | {second:.2f} s |")
            print(f"| install {package} | {seconds:.1f} s, {sum(sizes.values()):.0f} MB | |")
        print("\n| package | MB |\n|---|---|")
        for package, megabytes in sorted(shown.items(), key=lambda item: -item[1]):
            if megabytes >= 0.5:
                print(f"| {package} | {megabytes:.1f} |")
        print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
