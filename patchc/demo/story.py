"""The demo's story: train a base, fix it, apply the patch, verify, revert."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from blake3 import blake3

from patchc.demo.requests import write_requests
from patchc.demo.tiny_model import train_base
from patchc.derivation.derive_options import DeriveOptions, TuneOptions
from patchc.derivation.session import quiet_transformers, reproducible
from patchc.errors import ResultMismatchError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.files import check_output
from patchc.fitting.fit_options import FitOptions
from patchc.fixing.fix import fix
from patchc.fixing.fix_options import FixOptions
from patchc.fixing.report import FixReport
from patchc.progress import Progress, ignore_progress
from patchc.verbs.apply import apply
from patchc.verbs.revert import revert
from patchc.verbs.verify import verify

_DERIVE = DeriveOptions(
    objective="margin",
    margin=TuneOptions(learning_rate=2e-4, steps=60, batch_size=24),
    device="cpu",
)
_FIT = FitOptions(steps=10)
_ASKING = EvaluateOptions(judge="patchc.demo.judge:verdicts", max_new_tokens=20, device="cpu")


@dataclass(frozen=True)
class DemoReport:
    """What the demo found.

    Attributes:
        fix: the report of :func:`patchc.fix`.
        changed_words: entries that the patch changes.
        seconds: seconds spent, by part of the story.
    """

    fix: FixReport
    changed_words: int
    seconds: dict[str, float]


def run_demo(
    work: str | os.PathLike[str], *, seed: int = 0, progress: Progress = ignore_progress
) -> DemoReport:
    """Play the whole story in a folder, through the same functions that users call.

    The same seed gives the same report on the same machine. The folder keeps ``base``,
    ``requests``, ``fix`` with all that :func:`patchc.fix` writes, ``patched`` and ``restored``.

    Args:
        work: a new or empty folder.
        seed: of the base's training, the requests and the fix.
        progress: called with the steps of every part.

    Raises:
        OutputError, StorageError: the folder cannot be used.
        UnfixedError: the fit found no point that may be a patch.
        ResultMismatchError: the patched or the restored model is not what it must be.
    """
    work = Path(work)
    check_output(work, ())
    seconds: dict[str, float] = {}
    with _one_thread(), quiet_transformers():
        with _timed(seconds, "train"), reproducible(torch.device("cpu"), seed):
            train_base(work / "base", seed, progress)
        with _timed(seconds, "fix"):
            fixed = _fix(work, seed, progress)
        with _timed(seconds, "check"):
            changed_words = _check(work)
    return DemoReport(fixed, changed_words, seconds)


def _fix(work: Path, seed: int, progress: Progress) -> FixReport:
    files = write_requests(work / "requests", seed)
    return fix(
        work / "base",
        work / "fix",
        harmful=files["harmful"],
        harmless=files["harmless"],
        utility=files["utility"],
        options=FixOptions(derive=_DERIVE, fit=_FIT, asking=_ASKING, seed=seed),
        progress=progress,
    )


def _check(work: Path) -> int:
    """Apply and revert the patch; gives the number of entries that it changes."""
    base, patch = work / "base", work / "fix/fix.patchc"
    written = apply(patch, base, out=work / "patched")
    state = verify(patch, work / "patched").state
    if state != "patched":
        raise ResultMismatchError(f"{work / 'patched'}: verify finds it in state {state!r}")
    revert(patch, work / "patched", out=work / "restored")
    if _digest(work / "restored") != _digest(base):
        raise ResultMismatchError(f"{work / 'restored'}: differs from the base it came from")
    return written.changed_words


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
