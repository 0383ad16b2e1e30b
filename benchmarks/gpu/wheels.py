"""What this Python lacks: found, installed from a folder of wheels, or downloaded to one.

    PYTHONPATH=benchmarks python -m gpu.wheels FOLDER [--only blake3 bitsandbytes]

fills a folder for a machine without a network, which has torch and Triton: neither these nor
NVIDIA's libraries are downloaded. With ``--only``, just these and nothing that they need.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass
from importlib import invalidate_caches
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST_TOOLS = ("hypothesis", "ml-dtypes", "pytest", "pytest-xdist", "gguf")
"""Of the development tools, those that the tests import."""
THERE = {"torch": "2.11.0", "triton": "3.6.0"}
"""What a machine with a device has: never downloaded, and the rest is chosen to go with it."""
PYTHON = "3.12"
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(39, 16, -1)),
    "manylinux2014_x86_64",
)
INSTALL_LIMIT = 60.0
"""Seconds for one call of pip."""


@dataclass(frozen=True)
class Requirement:
    """A line of pyproject.toml or of a package; extras and markers are for pip."""

    line: str

    @property
    def name(self) -> str:
        return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", self.line).group()).lower()

    @property
    def bounds(self) -> str:
        return re.sub(r"^[\w.-]+(\[[^]]*\])?|;.*", "", self.line).strip()

    def __str__(self) -> str:
        return self.name + self.bounds

    def held(self) -> str | None:
        """The version that this Python has, or None."""
        try:
            return version(self.name)
        except PackageNotFoundError:
            return None

    def met(self) -> bool:
        held = self.held()
        return held is not None and all(
            _within(held, sign, bound)
            for sign, bound in re.findall(r"(>=|<)\s*([\d.]+)", self.bounds)
        )

    def needs(self) -> list[Requirement]:
        """What the installed package needs, but for its extras."""
        lines = requires(self.name) or [] if self.held() else []
        return [Requirement(line) for line in lines if "extra ==" not in line]


def _within(held: str, sign: str, bound: str) -> bool:
    one, other = _release(held), _release(bound)
    return one >= other if sign == ">=" else one < other


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.match(r"[\d.]*\d", text).group().split("."))


class Requirements:
    """What the parts of the run need, from pyproject.toml."""

    def __init__(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = project["optional-dependencies"]
        self.core = [Requirement(line) for line in project["dependencies"] + extras["gpu"]]
        self.derive = [Requirement(line) for line in extras["derive"]]
        tools = [Requirement(line) for line in extras["dev"]]
        self.tests = [one for one in tools if one.name in TEST_TOOLS]

    def all(self) -> list[Requirement]:
        by_name = {one.name: one for one in (*self.derive, *self.tests, *self.core)}
        return [by_name[name] for name in sorted(by_name)]


def install(unmet: list[Requirement], wheels: Path, prefix: Path) -> list[str]:
    """Install from a folder to a prefix of its own, and use it in this process.

    The Python stays as it is: pip left to itself would remove what is too old from it. So each
    package is installed alone, and after it what it needs and does not find. torch and Triton are
    never installed.

    Returns:
        The folders for the PYTHONPATH of other processes.
    """
    seen = set(THERE)
    folders: list[str] = []
    while unmet := [one for one in unmet if one.name not in seen and not one.met()]:
        seen |= {one.name for one in unmet}
        if _pip(unmet, wheels, prefix):
            # One wheel that is missing stops the whole call, so they go one by one.
            for one in unmet:
                if message := _pip([one], wheels, prefix):
                    print(f"{one}: not installed from {wheels}: {message}")
        folders = [str(path) for path in prefix.rglob("*-packages")]
        sys.path[:0] = [path for path in folders if path not in sys.path]
        invalidate_caches()
        unmet = [need for one in unmet for need in one.needs()]
    return folders


def _pip(chosen: list[Requirement], wheels: Path, prefix: Path) -> str:
    """Install these alone; the last line of what pip says against it."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-index"]
    alone = ["--no-deps", "--ignore-installed", "--no-warn-script-location"]
    places = ["--find-links", str(wheels), "--prefix", str(prefix)]
    lines = [one.line for one in chosen]
    try:
        done = subprocess.run(
            [*command, *alone, *places, *lines],
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_LIMIT,
        )
    except subprocess.TimeoutExpired:
        return f"pip took over {INSTALL_LIMIT:.0f} s"
    if not done.returncode:
        return ""
    return (done.stderr.strip() or "pip failed").splitlines()[-1]


def download(folder: Path, only: list[str]) -> None:
    """Fill a folder with wheels for ``PYTHON`` on Linux.

    Raises:
        SystemExit: pip failed; its message is on standard error.
    """
    unknown = set(only) - {one.name for one in Requirements().all()}
    if unknown:
        raise SystemExit(
            f"not among the requirements in pyproject.toml: {', '.join(sorted(unknown))}"
        )
    chosen = [one for one in Requirements().all() if one.name not in THERE]
    chosen = [one for one in chosen if not only or one.name in only]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--only-binary=:all:",
        "--dest",
        str(folder),
    ]
    target = ["--python-version", PYTHON, "--implementation", "cp"]
    target += [word for platform in PLATFORMS for word in ("--platform", platform)]
    with tempfile.TemporaryDirectory() as stubs:
        for name, held in THERE.items():
            _write_stub(Path(stubs), name, held)
        pins = Path(stubs) / "pins.txt"
        pins.write_text("".join(f"{name}==={held}+there\n" for name, held in THERE.items()))
        needs = ["--no-deps"] if only else ["--find-links", stubs, "--constraint", str(pins)]
        code = subprocess.call([*command, *target, *needs, *map(str, chosen)])
    for stub in folder.glob("*+there-*.whl"):
        stub.unlink()
    if code:
        raise SystemExit(code)


def _write_stub(folder: Path, name: str, held: str) -> None:
    """An empty wheel that stands for a package which the machine has, and needs nothing."""
    label = f"{name}-{held}+there"
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {held}+there\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{label}-py3-none-any.whl", "w") as wheel:
        for file, text in files.items():
            wheel.writestr(f"{label}.dist-info/{file}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    options = parser.parse_args()
    download(options.folder, options.only)


if __name__ == "__main__":
    main()
