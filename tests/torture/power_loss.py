"""Proves that a model in place survives power losses: none is lost, none is silently mixed.

Each point cuts one run in place at one of its calls, draws what the disk may hold afterwards, and
asks of that state alone: does ``verify`` know it, does the same verb complete it, does the other
verb take it back? At a share of the points, the power goes again while the run is repeated.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from simulated_disk import PowerLoss, SimulatedDisk
from tiny_checkpoints import normal, nudge, tree, write_model

import patchc
from patchc.patching import pending_groups
from patchc.sides import OTHER, Side

_VERBS = {"result": patchc.apply, "base": patchc.revert}
_KNOWN = ("base", "patched", "partly patched")
_GROUP_BYTES = 20_000  # two chunks, so that a run has several groups


@dataclass(frozen=True)
class Sides:
    """A patch and the two models that it leads between, each in several shards."""

    patch: Path
    base: Path
    result: Path

    def model(self, side: Side) -> Path:
        """The model on one side."""
        return self.base if side == "base" else self.result


def write_sides(folder: Path) -> Sides:
    """Make a patch and its models, with chunks of 4096 words."""
    base = {f"layers.{i}.weight": normal((60, 100), "BF16", i) for i in range(5)}
    result = {name: nudge(value, 0.03, 9) for name, value in base.items()}
    base["head"] = result["head"] = normal((3000,), "BF16", 7)
    models = [
        write_model(folder / name, held, shards=2)
        for name, held in (("base", base), ("result", result))
    ]
    patchc.diff(*models, out=folder / "fix.patchc", chunk_bits=12)
    return Sides(folder / "fix.patchc", *models)


def run_matrix(folder: Path, points: int, seed: int) -> Counter[str]:
    """Cut off ``points`` runs, evenly over both verbs and all calls of a run.

    Returns:
        Counts by outcome: "points", "torn" (chunks were), "cut twice", and "lost", which has to
        be 0.
    """
    sides, rng = write_sides(folder), random.Random(seed)
    pending_groups.GROUP_BYTES, usual = _GROUP_BYTES, pending_groups.GROUP_BYTES
    counts: Counter[str] = Counter(lost=0)
    try:
        calls = {target: _count_calls(sides, folder, target) for target in OTHER}
        for number in range(points):
            target = rng.choice(list(OTHER))
            at = number * calls[target] // points
            counts.update(_point(sides, folder, target, at, random.Random(seed + number)))
    finally:
        pending_groups.GROUP_BYTES = usual
    return counts


def _count_calls(sides: Sides, folder: Path, target: Side) -> int:
    model = _fresh(sides.model(OTHER[target]), folder / "counted")
    with SimulatedDisk(model, None) as disk:
        _VERBS[target](sides.patch, model, in_place=True, threads=2)
    return disk.calls


def _point(sides: Sides, folder: Path, target: Side, at: int, rng: random.Random) -> Counter[str]:
    counts = Counter(points=1)
    model = _fresh(sides.model(OTHER[target]), folder / "model")
    state = _cut(sides, model, target, at, rng)
    while rng.random() < 0.3:
        counts["cut twice"] += 1
        again = rng.choice(list(OTHER))
        state = _cut(sides, _fill(folder / "model", state), again, rng.randrange(40), rng)
    report = patchc.verify(sides.patch, _fill(folder / "model", state))
    counts["torn"] += report.chunks_torn
    for end in OTHER:
        model = _fill(folder / "model", state)
        if report.state not in _KNOWN or not _leads_to(sides, model, end):
            counts["lost"] += 1
            _fill(folder / f"lost-{target}-{at}", state)
    return counts


def _leads_to(sides: Sides, model: Path, end: Side) -> bool:
    """Whether the model and the patch alone lead on to a side."""
    with suppress(patchc.PatchcError):
        _VERBS[end](sides.patch, model, in_place=True, resume=True, threads=2)
        return tree(model) == tree(sides.model(end))
    return False


def _cut(sides: Sides, model: Path, target: Side, at: int, rng: random.Random) -> dict[str, bytes]:
    with (
        SimulatedDisk(model, at, rng.random() < 0.5) as disk,
        suppress(PowerLoss, patchc.PatchcError),
    ):
        _VERBS[target](sides.patch, model, in_place=True, threads=2)
    return disk.after_loss(rng)


def _fresh(model: Path, folder: Path) -> Path:
    return _fill(folder, {path.name: path.read_bytes() for path in model.iterdir()})


def _fill(folder: Path, files: dict[str, bytes]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
