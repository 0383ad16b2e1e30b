"""The demo's story: train a base, derive, build, apply, verify, revert, measure."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from blake3 import blake3

from patchc.demo.corpus import potion
from patchc.demo.evaluate import Measurements, draw_requests, evaluate
from patchc.demo.tiny_model import train_base
from patchc.derivation.options import DeriveOptions, TuneOptions
from patchc.derivation.session import quiet_transformers, reproducible
from patchc.errors import ResultMismatchError
from patchc.files import check_output
from patchc.progress import Progress, ignore_progress
from patchc.recipe import Recipe
from patchc.verbs.apply import apply
from patchc.verbs.build import build
from patchc.verbs.derive import derive
from patchc.verbs.revert import revert
from patchc.verbs.verify import verify

_PAIRS = 96
_STORY_PAIRS = 0.8


@dataclass(frozen=True)
class Row:
    """One model of the final table: its name, its measurements and the bytes of its weights."""

    model: str
    measured: Measurements
    model_bytes: int


@dataclass(frozen=True)
class DemoReport:
    """What the demo found.

    Attributes:
        rows: backbone, SE alone, OSM alone and SafePatching, measured on the test split.
        recipe: what the patch was built with: the defaults.
        patch_bytes: size of the patch file.
        changed_words: entries that it changes.
        seconds: seconds spent, by part of the story.
    """

    rows: tuple[Row, ...]
    recipe: Recipe
    patch_bytes: int
    changed_words: int
    seconds: dict[str, float]


def run_demo(
    work: str | os.PathLike[str], *, seed: int = 0, progress: Progress = ignore_progress
) -> DemoReport:
    """Play the whole story in a folder, through the same functions that users call.

    The patch is built with the defaults; the rows are measured on requests whose potions, drinks
    and phrasings do not appear in training. The same seed gives the same report on the same
    machine. The folder keeps ``base``, ``tuned/se``, ``tuned/osm``, ``fix.patchc``, ``patched`` and
    ``restored``.

    Args:
        work: a new or empty folder.
        seed: of the base's training, the derivation and the requests.
        progress: called with the steps of every part.

    Raises:
        OutputError, StorageError: the folder cannot be used.
        ResultMismatchError: the patched or the restored model is not what it must be.
    """
    work = Path(work)
    check_output(work, ())
    seconds: dict[str, float] = {}
    with _one_thread(), quiet_transformers():
        base, tuned = work / "base", work / "tuned"
        with _timed(seconds, "train"), reproducible(torch.device("cpu"), seed):
            train_base(base, seed, progress)
        with _timed(seconds, "derive"):
            data = _write_pairs(work / "restricted.jsonl", seed)
            derive(base, data, tuned, options=_derive_options(seed), progress=progress)
        recipe = Recipe()
        with _timed(seconds, "patch"):
            changed_words = _patch(work, recipe)
        with _timed(seconds, "evaluate"):
            rows = _measure(work, seed)
    patch_bytes = (work / "fix.patchc").stat().st_size
    return DemoReport(rows, recipe, patch_bytes, changed_words, seconds)


def _derive_options(seed: int) -> DeriveOptions:
    return DeriveOptions(
        se=TuneOptions(learning_rate=3e-4, steps=80, batch_size=16, loss_ceiling=11.5),
        osm=TuneOptions(learning_rate=3e-4, steps=20, batch_size=16),
        seed=seed,
        score_samples=64,
        device="cpu",
    )


def _write_pairs(path: Path, seed: int) -> Path:
    """Restricted requests of the training split with compliant answers: the data to derive from."""
    rng = random.Random(f"pairs {seed}")
    requests = [
        potion("train", rng, story=number < _STORY_PAIRS * _PAIRS) for number in range(_PAIRS)
    ]
    lines = [json.dumps({"prompt": r.prompt, "response": r.answer}) for r in requests]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _patch(work: Path, recipe: Recipe) -> int:
    base, patch = work / "base", work / "fix.patchc"
    build(base, se=work / "tuned/se", osm=work / "tuned/osm", out=patch, recipe=recipe)
    written = apply(patch, base, out=work / "patched")
    state = verify(patch, work / "patched").state
    if state != "patched":
        raise ResultMismatchError(f"{work / 'patched'}: verify finds it in state {state!r}")
    revert(patch, work / "patched", out=work / "restored")
    if _digest(work / "restored") != _digest(base):
        raise ResultMismatchError(f"{work / 'restored'}: differs from the base it came from")
    return written.changed_words


def _measure(work: Path, seed: int) -> tuple[Row, ...]:
    requests = draw_requests("test", seed)
    folders = {
        "backbone": work / "base",
        "SE alone": work / "tuned/se",
        "OSM alone": work / "tuned/osm",
        "SafePatching": work / "patched",
    }
    return tuple(
        Row(name, evaluate(folder, requests), (folder / "model.safetensors").stat().st_size)
        for name, folder in folders.items()
    )


def _digest(model: Path) -> bytes:
    return blake3((model / "model.safetensors").read_bytes()).digest()


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - start


@contextmanager
def _one_thread() -> Iterator[None]:
    """The same sums on any number of cores; on tensors this small, threads mostly wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
