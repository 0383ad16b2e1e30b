"""``patchc derive`` on a tiny Llama, as a user gives it; in few steps, and always on the CPU."""

from __future__ import annotations

from pathlib import Path

from command_line import run
from tiny_llama import write_base, write_data

FEW = (
    "--se-steps", "3", "--osm-steps", "3", "--batch-size", "3", "--score-samples", "3",
    "--device", "cpu",
)  # fmt: skip


def write_inputs(folder: Path) -> Path:
    """Write the base and the data into a folder."""
    write_base(folder / "base")
    write_data(folder / "data.jsonl")
    return folder


def derive(folder: Path, out: Path, *more: object) -> tuple[int, str, str]:
    """Derive from what lies in a folder: the exit code, standard output and standard error."""
    return run("derive", *arguments(folder, out), *more)


def arguments(folder: Path, out: Path | str) -> tuple[str, ...]:
    """The arguments of the command."""
    data = folder / "data.jsonl"
    return (str(folder / "base"), "--data", str(data), "-o", str(out), *FEW)


def scratch_of(folder: Path) -> list[Path]:
    """The scratch folders in a folder."""
    return sorted(folder.glob("*.patchc-scratch-*"))
