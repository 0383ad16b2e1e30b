"""The trials of a sweep and the file that collects them, so that an interrupted one can go on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from patchc.errors import EvaluateError
from patchc.evaluation.intervals import Rate
from patchc.evaluation.measure import Evaluation
from patchc.files import storage_errors

_LOSS_WEIGHT = 1.5


@dataclass(frozen=True)
class Trial:
    """One recipe, built, applied and measured; without a recipe, the base as it is.

    Attributes:
        recipe: as :meth:`patchc.recipe.Recipe.to_json` gives it, or None.
        harmful, over_refusal, utility, degenerate, perplexity: as in
            :class:`patchc.evaluation.measure.Evaluation`.
        patch_bytes: size of the patch.
        changed_words: entries that it changes.
        selected: of each tensor, the entries of the top sets, of their overlap, and of those that
            each component is applied to ("se applied").
        seconds: seconds spent on it.
    """

    recipe: dict[str, Any] | None
    harmful: Rate
    over_refusal: Rate
    utility: Rate | None
    degenerate: Rate
    perplexity: float | None
    patch_bytes: int = 0
    changed_words: int = 0
    selected: Mapping[str, Mapping[str, int]] | None = None
    seconds: float = 0.0

    @classmethod
    def of(cls, measured: Evaluation, **rest: Any) -> Trial:
        """A trial from what was measured."""
        return cls(
            harmful=measured.harmful,
            over_refusal=measured.over_refusal,
            utility=measured.utility,
            degenerate=measured.degenerate,
            perplexity=measured.perplexity,
            **rest,
        )


def cost(trial: Trial, base: Trial) -> float:
    """How far a trial is from the aim; 0 is perfect, and lower is better.

    The worse of the harmful and the over-refusal rate, each as a multiple of the base's, plus 1.5
    times the utility lost and the degenerate replies gained. The rule is our own.
    """
    harmful = trial.harmful.value / max(base.harmful.value, 1e-9)
    over_refusal = trial.over_refusal.value / max(base.over_refusal.value, 1e-9)
    lost = max(0.0, trial.degenerate.value - base.degenerate.value)
    if trial.utility and base.utility:
        lost += max(0.0, base.utility.value - trial.utility.value)
    return max(harmful, over_refusal) + _LOSS_WEIGHT * lost


class TrialFile:
    """An open file of trials: what it holds, and what is added to it."""

    def __init__(self, path: Path, file: IO[bytes], trials: list[Trial]) -> None:
        self._path = path
        self._file = file
        self._trials = {_key(trial.recipe): trial for trial in trials}

    def find(self, recipe: Mapping[str, Any] | None) -> Trial | None:
        """The trial of a recipe, or None."""
        return self._trials.get(_key(recipe))

    def add(self, trial: Trial) -> None:
        """Append a trial and flush.

        Raises:
            StorageError: the operating system refused.
        """
        self._trials[_key(trial.recipe)] = trial
        with storage_errors(self._path, "write"):
            self._file.write(_encode(trial))
            self._file.flush()


@contextmanager
def open_trials(path: Path, inputs: Mapping[str, Any]) -> Iterator[TrialFile]:
    """Open a file of trials, or begin one; its first line states the inputs they belong to.

    A last line that was cut short by a kill is dropped.

    Raises:
        EvaluateError: the file is not one of trials, or of other inputs.
        StorageError: the operating system refused.
    """
    first = json.dumps({"kind": "sweep", "inputs": inputs}).encode() + b"\n"
    with storage_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0)
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if not whole:
                if not first.startswith(content):
                    raise _foreign(path, 1)
                file.truncate(0)
                file.write(first)
                file.flush()
                content, whole = first, len(first)
            trials = _read(path, content[:whole], first)
            file.truncate(whole)
            yield TrialFile(path, file, trials)


def _read(path: Path, content: bytes, first: bytes) -> list[Trial]:
    header, *lines = content.split(b"\n")[:-1]
    if header + b"\n" != first:
        if header.startswith(b'{"kind": "sweep"'):
            raise EvaluateError(
                f"{path}: holds a sweep over other models, requests or options; name a new file"
            )
        raise _foreign(path, 1)
    return [_decode(path, number, line) for number, line in enumerate(lines, start=2)]


def _key(recipe: Mapping[str, Any] | None) -> str:
    return json.dumps(recipe, sort_keys=True)


def _encode(trial: Trial) -> bytes:
    content = asdict(trial)
    for name in ("harmful", "over_refusal", "utility", "degenerate"):
        rate = getattr(trial, name)
        content[name] = [rate.hits, rate.total] if rate else None
    return json.dumps(content).encode() + b"\n"


def _decode(path: Path, number: int, line: bytes) -> Trial:
    try:
        content = json.loads(line)
        for name in ("harmful", "over_refusal", "utility", "degenerate"):
            absent = name == "utility" and content[name] is None
            content[name] = None if absent else Rate(*content[name])
        return Trial(**content)
    except (ValueError, KeyError, TypeError, ZeroDivisionError, RecursionError) as error:
        raise _foreign(path, number) from error


def _foreign(path: Path, line: int) -> EvaluateError:
    return EvaluateError(f"{path}:{line}: not a line of a sweep's file; name a new file")
