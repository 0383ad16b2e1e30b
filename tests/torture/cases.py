"""What the matrices run: small inputs made anew, and commands with what each has to lead to.

Each command is known to be right here, because the wanted outcome is checked against models that
were written by hand, or is that of a run without any trouble, which other tests hold.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from build_inputs import random_inputs
from command_line import run
from tiny_checkpoints import normal, nudge, tree, write_model

import patchc

IN_PLACE = ("apply --in-place", "revert --in-place")
COPIES = ("apply -o", "revert -o", "build", "diff", "fold")
VERIFY = "verify"

_CHUNK_BITS = 12
GROUP_BYTES = 4 << _CHUNK_BITS
"""Bytes of two chunks: with groups of this size, a run in place has many."""

_SECONDS = re.compile(rb'"seconds": ([-+.e0-9]+|{[^}]*})')
_STAMP = "stage.json"  # digests of files that say how long it took
_SIDE_FILES = {
    "config.json": '{"model_type": "llama"}\n',
    "tokenizer.json": "{}",
    "assets/chat_template.jinja": "{{ messages }}",
}


@dataclass(frozen=True)
class Case:
    """One command, and what it has to lead to.

    Attributes:
        name: the verb, and how it writes.
        command: its arguments; "{model}" and "{out}" stand for paths of the place where it runs.
        inputs: what it reads and must never change.
        wanted: what the output has to equal, or the model in place; None if there is none.
        source: in place, what the model is before.
        back: in place, the arguments of the other verb.
        verify: in place, the arguments that ask for the model's state.
        in_parts: whether a run that is cut off may leave a part of the output: finished work from
            which the next run goes on, or some of several outputs, each of which is whole.
    """

    name: str
    command: tuple[str, ...]
    inputs: tuple[Path, ...]
    wanted: Path | None = None
    source: Path | None = None
    back: tuple[str, ...] = ()
    verify: tuple[str, ...] = ()
    in_parts: bool = False


@dataclass(frozen=True)
class Place:
    """The folder of one run of a case, with nothing else in it than a model in place."""

    folder: Path
    case: Case

    @property
    def model(self) -> Path:
        """The model that a run in place changes."""
        return self.folder / "model"

    @property
    def out(self) -> Path:
        """The output of other runs."""
        return self.folder / "out"

    def fill(self) -> Place:
        """Empty the folder, and put the model there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        if self.case.source:
            shutil.copytree(self.case.source, self.model)
        return self

    def twin(self) -> Place:
        """A copy of the place as it is now."""
        twin = self.folder.with_name(f"{self.folder.name}-twin")
        shutil.rmtree(twin, ignore_errors=True)
        shutil.copytree(self.folder, twin)
        return Place(twin, self.case)

    def arguments(self, command: tuple[str, ...]) -> list[str]:
        """A command of the case, for this place."""
        return [part.format(model=self.model, out=self.out) for part in command]

    def state(self, any_mode: bool = False) -> str:
        """What is at the output: "absent", "complete" or "wrong"; maybe of any permission bits."""
        if not os.path.lexists(self.out):
            return "absent"
        found, wanted = content(self.out), content(self.case.wanted)
        if any_mode:
            found = {name: (0, data) for name, (_, data) in found.items()}
            wanted = {name: (0, data) for name, (_, data) in wanted.items()}
        return "complete" if found == wanted else "wrong"

    def holds(self, model: Path | None) -> bool:
        """Whether the model in place is equal to another, with no file more or less."""
        return content(self.model) == content(model)

    def hidden(self) -> list[str]:
        """Hidden files and folders, which only runs that were cut off may leave."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob(".*"))


def on_its_own(case: Case) -> Case:
    """The command on a copy of its model at the place, for those who change the model."""
    model = case.inputs[1]
    command = tuple("{model}" if part == str(model) else part for part in case.command)
    return replace(case, command=command, inputs=case.inputs[:1], source=model)


def content(path: Path | None) -> dict[str, tuple[int, bytes]]:
    """Permission bits and bytes of a file or of a folder's files; but not how long things took."""
    if path is None:
        return {}
    files = tree(path) if path.is_dir() else {"": (path.stat().st_mode, path.read_bytes())}
    return {
        name: (mode, _SECONDS.sub(b"", data))
        for name, (mode, data) in files.items()
        if Path(name).name != _STAMP
    }


def stamps(paths: tuple[Path, ...]) -> object:
    """What tells, without reading, that nothing was changed."""
    files = [file for path in paths for file in (path, *sorted(path.rglob("*")))]
    states = [(file, file.stat()) for file in files]
    return [(file, state.st_ino, state.st_size, state.st_mtime_ns) for file, state in states]


def write_cases(folder: Path, layers: int = 6, rows: int = 150) -> dict[str, Case]:
    """Write the inputs, and give the commands by name.

    Args:
        folder: for the inputs.
        layers: tensors that change; there are two more that do not.
        rows: of each, with 128 columns of bf16.
    """
    models = _write_chain(folder, layers, rows)
    patch, *steps = _write_patches(folder, models)
    base, _, result = models
    built = _write_tuned(folder, layers, rows)
    cases = [
        Case("apply -o", ("apply", str(patch), str(base), "-o", "{out}"), (patch, base), result),
        Case(
            "revert -o", ("revert", str(patch), str(result), "-o", "{out}"), (patch, result), base
        ),
        *_cases_in_place(patch, base, result),
        Case(VERIFY, ("verify", str(patch), str(base)), (patch, base)),
        _with_outcome(
            folder,
            "build",
            (str(built["base"]), "--se", str(built["se"]), "--osm", str(built["osm"])),
            tuple(built.values()),
        ),
        _with_outcome(folder, "diff", (str(base), str(result)), (base, result)),
        _with_outcome(folder, "fold", (*map(str, steps), "--base", str(base)), (*steps, base)),
    ]
    return {case.name: case for case in cases}


def _write_chain(folder: Path, layers: int, rows: int) -> list[Path]:
    base = {f"layers.{i}.mlp.up_proj.weight": normal((rows, 128), "BF16", i) for i in range(layers)}
    still = {name: normal((5000,), "BF16", 99) for name in ("lm_head.weight", "norm.weight")}
    middle = {name: nudge(value, 0.03, 200 + i) for i, (name, value) in enumerate(base.items())}
    result = {name: nudge(value, 0.03, 300 + i) for i, (name, value) in enumerate(middle.items())}
    states = {"base": base, "middle": middle, "result": result}
    return [
        write_model(folder / name, {**state, **still}, shards=3, side_files=_SIDE_FILES)
        for name, state in states.items()
    ]


def _write_patches(folder: Path, models: list[Path]) -> list[Path]:
    base, middle, result = models
    pairs = {"fix": (base, result), "first": (base, middle), "second": (middle, result)}
    patches = []
    for name, (before, after) in pairs.items():
        patches.append(folder / f"{name}.patchc")
        patchc.diff(before, after, out=patches[-1], chunk_bits=_CHUNK_BITS)
    return patches


def _write_tuned(folder: Path, layers: int, rows: int) -> Mapping[str, Path]:
    shapes = {f"layers.{i}.mlp.up_proj.weight": (rows, 128) for i in range(layers)}
    return random_inputs(shapes).write(folder / "tuned", {"base": 2, "tuned": 2})


def _cases_in_place(patch: Path, base: Path, result: Path) -> list[Case]:
    apply, revert, verify = (
        (verb, str(patch), "{model}", *options)
        for verb, options in (
            ("apply", ["--in-place"]),
            ("revert", ["--in-place"]),
            (VERIFY, []),
        )
    )
    return [
        Case("apply --in-place", apply, (patch,), result, base, revert, verify),
        Case("revert --in-place", revert, (patch,), base, result, apply, verify),
    ]


def _with_outcome(
    folder: Path, verb: str, given: tuple[str, ...], inputs: tuple[Path, ...]
) -> Case:
    wanted = folder / f"wanted-{verb}"
    code, _, errors = run(verb, *given, "-o", wanted)
    if code:
        raise RuntimeError(f"{verb}: {errors}")
    return Case(verb, (verb, *given, "-o", "{out}"), inputs, wanted)
