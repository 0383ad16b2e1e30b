"""The trials of a sweep and the file that collects them, so that an interrupted one can go on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from patchc.evaluation.intervals import Rate
from patchc.evaluation.journal import Journal, open_journal
from patchc.evaluation.measure import Evaluation

_LOSS_WEIGHT = 1.5
_RATES = ("harmful", "over_refusal", "utility", "degenerate")


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

    def __init__(self, journal: Journal[Trial]) -> None:
        self._journal = journal
        self._trials = {_key(trial.recipe): trial for trial in journal.entries}

    def find(self, recipe: Mapping[str, Any] | None) -> Trial | None:
        """The trial of a recipe, or None."""
        return self._trials.get(_key(recipe))

    def add(self, trial: Trial) -> None:
        """Append a trial.

        Raises:
            StorageError: the operating system refused.
        """
        self._journal.add([trial])
        self._trials[_key(trial.recipe)] = trial


@contextmanager
def open_trials(path: Path, inputs: Mapping[str, Any]) -> Iterator[TrialFile]:
    """Open a file of trials, or begin one; its first line states the inputs they belong to.

    Raises:
        EvaluateError, StorageError: see :func:`patchc.evaluation.journal.open_journal`.
    """
    with open_journal(path, "sweep", inputs, _encode, _decode) as journal:
        yield TrialFile(journal)


def _key(recipe: Mapping[str, Any] | None) -> str:
    return json.dumps(recipe, sort_keys=True)


def _encode(trial: Trial) -> dict[str, Any]:
    content = asdict(trial)
    for name in _RATES:
        rate = getattr(trial, name)
        content[name] = [rate.hits, rate.total] if rate else None
    if trial.perplexity is not None and not math.isfinite(trial.perplexity):
        content["perplexity"] = str(trial.perplexity)
    return content


def _decode(content: Any) -> Trial:
    for name in _RATES:
        absent = name == "utility" and content[name] is None
        content[name] = None if absent else Rate(*content[name])
    if content["perplexity"] is not None:
        content["perplexity"] = float(content["perplexity"])
    return Trial(**content)
