"""Runs commands on models of all common kinds, and prints which loops were compiled meanwhile.

    python warm_runs.py FOLDER

The first line that it prints are the loops, the second is how many a loop of its own added: one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from build_inputs import LAYER_0, LAYER_1, NORM, random_inputs
from command_line import run
from numba.core import event
from tiny_checkpoints import nudge, write_model

from patchc.jit import loop


class Compiled(event.Listener):
    """The names of the loops that are compiled."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_start(self, event: event.Event) -> None:
        self.names.append(f"{event.data['dispatcher'].py_func.__qualname__}{event.data['args']}")

    def on_end(self, event: event.Event) -> None:
        pass


def must(*arguments: object) -> None:
    code, _, err = run(*arguments)
    if code:
        sys.exit(f"{arguments}: {code}\n{err}")


def run_commands(folder: Path, dtype: str, codec: str, rows: int) -> None:
    """Everything that ``patchc warm-up apply build diff verify revert fold inspect`` promises."""
    shapes = {LAYER_0: (rows, 700), LAYER_1: (rows, 500), NORM: (700,)}
    made = random_inputs(shapes, dtype, tuned_dtype=dtype, unscored=(NORM,))
    made.write(folder)
    base, components = folder / "base", ("--se", folder / "se", "--osm", folder / "osm")
    tuned = {name: nudge(value, 0.05, 1) for name, value in made.base.items()}
    write_model(folder / "tuned", tuned)
    write_model(folder / "last", {name: nudge(value, 0.001, 2) for name, value in tuned.items()})
    must("diff", base, folder / "tuned", "-o", folder / "one", "--codec", codec)
    must("diff", folder / "tuned", folder / "last", "-o", folder / "two", "--codec", codec)
    must("build", base, *components, "-o", folder / "fix", "--codec", codec)
    must("fold", folder / "one", folder / "two", "--base", base, "-o", folder / "both")
    for patch in ("one", "both", "fix"):
        applied, reverted = folder / f"{patch}-applied", folder / f"{patch}-reverted"
        must("inspect", folder / patch)
        must("apply", folder / patch, base, "-o", applied)
        must("verify", folder / patch, applied)
        must("revert", folder / patch, applied, "-o", reverted)
        must("apply", folder / patch, reverted, "--in-place")
    for kind in ("bf16", "int8"):
        additive = folder / f"additive-{kind}"
        values = ("--values", "additive", "--value-type", kind)
        must("build", base, *components, *values, "-o", additive)
        must("verify", additive, base)
        must("apply", additive, base, "-o", folder / f"{kind}-applied")
        more = ("--alpha", "2", "--beta", "1", "--onto-descendant")
        must("apply", additive, folder / "tuned", *more, "-o", folder / f"{kind}-onto")


def main() -> None:
    folder, compiled = Path(sys.argv[1]), Compiled()
    event.register("numba:compile", compiled)
    for dtype in ("BF16", "F16", "F32"):
        for codec in ("auto", "rice"):
            for rows in (3, 200):
                run_commands(folder / f"{dtype}-{codec}-{rows}", dtype, codec, rows)
    print(*compiled.names, sep="; ")
    before = len(compiled.names)
    loop(lambda value: value + 1)(1)
    print(len(compiled.names) - before)


if __name__ == "__main__":
    main()
