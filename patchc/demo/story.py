"""The demo's story: train a base, fix it, apply the patch, verify, revert."""

from __future__ import annotations

import filecmp
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from patchc.demo.requests import write_answered, write_requests, write_whole_requests
from patchc.demo.tiny_model import train_base
from patchc.derivation.derive_options import DeriveOptions, TuneOptions
from patchc.derivation.session import quiet_transformers, reproducible
from patchc.errors import ResultMismatchError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.requests import SetName
from patchc.fitting.fit_options import FitOptions
from patchc.fixing.fix import fix
from patchc.fixing.fix_options import FixOptions
from patchc.fixing.fix_report import FixReport
from patchc.output_checks import check_output
from patchc.progress import Progress, ignore_progress
from patchc.signing.trust import JUST_MADE
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
class DemoStart:
    """What the demo begins with, for a fix by hand.

    Attributes:
        base: folder of the chat model.
        requests: the file of each set, not split.
        answered: harmful requests with compliant answers, for :func:`patchc.derive`.
    """

    base: Path
    requests: dict[SetName, Path]
    answered: Path


@dataclass(frozen=True)
class DemoReport:
    """What the demo found.

    Attributes:
        start: the model and the requests, as :func:`prepare_demo` writes them.
        fix: the report of :func:`patchc.fix`.
        changed_words: entries that the patch changes.
        seconds: seconds spent, by stage of the story.
    """

    start: DemoStart
    fix: FixReport
    changed_words: int
    seconds: dict[str, float]


def prepare_demo(
    work: str | os.PathLike[str], *, seed: int = 0, progress: Progress = ignore_progress
) -> DemoStart:
    """Write the story's model and requests into a folder, and leave the fix to the caller.

    Args:
        work: a new or empty folder; takes ``models/chat`` and files of requests.
        seed: of the model's training and the requests.
        progress: called with the steps of the training.

    Raises:
        OutputError, StorageError: the folder cannot be used.
    """
    work = Path(work)
    check_output(work, ())
    base = work / "models/chat"
    with _one_thread(), reproducible(torch.device("cpu"), seed):
        train_base(base, seed, progress)
    answered = write_answered(work / "answered.jsonl", seed)
    return DemoStart(base, write_whole_requests(work, seed), answered)


def run_demo(
    work: str | os.PathLike[str], *, seed: int = 0, progress: Progress = ignore_progress
) -> DemoReport:
    """Play the whole story in a folder, through the functions that users call.

    The same seed gives the same report on the same machine. The folder keeps what
    :func:`prepare_demo` writes, so that the same can be done by hand, and in ``demo`` what the
    story makes of it: ``requests``, split; ``fix`` with all that :func:`patchc.fix` writes;
    ``patched`` and ``reverted``.

    Args:
        work: a new or empty folder.
        seed: of the base's training, the requests and the fix.
        progress: called with the steps of every stage.

    Raises:
        OutputError, StorageError: the folder cannot be used.
        UnfixedError: the fit found no acceptable point.
        ResultMismatchError: the patched or the reverted model is wrong.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "train"):
        start = prepare_demo(work, seed=seed, progress=progress)
    base, made = start.base, Path(work) / "demo"
    patched, reverted, patch = made / "patched", made / "reverted", made / "fix/fix.patchc"
    with _one_thread():
        with _timed(seconds, "fix"):
            made.mkdir()
            files = write_requests(made / "requests", seed)
            fixed = fix(
                base,
                made / "fix",
                harmful=files["harmful"],
                harmless=files["harmless"],
                utility=files["utility"],
                options=FixOptions(derive=_DERIVE, fit=_FIT, asking=_ASKING, seed=seed),
                progress=progress,
            )
        with _timed(seconds, "check"):
            written = apply(patch, base, out=patched, trust=JUST_MADE)
            if (state := verify(patch, patched, trust=JUST_MADE).state) != "patched":
                raise ResultMismatchError(f"{patched}: verify finds it in state {state!r}")
            revert(patch, patched, out=reverted, trust=JUST_MADE)
            first, second = (folder / "model.safetensors" for folder in (base, reverted))
            if not filecmp.cmp(first, second, shallow=False):
                raise ResultMismatchError(f"{reverted}: differs from the base it came from")
    return DemoReport(start, fixed, written.changed_words, seconds)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: the same sums on any machine, and no slower on tensors this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with quiet_transformers():
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
