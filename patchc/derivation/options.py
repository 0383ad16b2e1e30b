"""The parameters of a derivation: validated, serialisable, and free of torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from patchc.errors import UsageError
from patchc.recipe import checks
from patchc.recipe.safepatching import SCORES, Score

Direction = Literal["se", "osm"]
Optimizer = Literal["adamw", "adamw8bit"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]

DIRECTIONS: tuple[Direction, ...] = ("se", "osm")


@dataclass(frozen=True)
class TuneOptions:
    """How one direction is fine-tuned.

    Attributes:
        learning_rate: constant AdamW step size, above 0.
        steps: optimiser steps, at least 1; used where ``epochs`` is None.
        epochs: passes over the data, above 0; replaces ``steps``.
        batch_size: conversations in a step, at least 1.
        clip: largest global norm of the gradient, above 0; None does not clip.
        loss_ceiling: tuning ends at the first batch whose loss reaches it; None never ends early.

    Raises:
        UsageError: a parameter is of the wrong type or out of range.
    """

    learning_rate: float
    steps: int
    epochs: float | None = None
    batch_size: int = 12
    clip: float | None = 1.0
    loss_ceiling: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            checks.count(name, getattr(self, name))
        _check_positive("learning_rate", self.learning_rate)
        for name in ("epochs", "clip", "loss_ceiling"):
            if getattr(self, name) is not None:
                _check_positive(name, getattr(self, name))

    def step_count(self, examples: int) -> int:
        """Optimiser steps over a data set of ``examples`` conversations."""
        if self.epochs is None:
            return self.steps
        return max(1, math.ceil(self.epochs * examples / self.batch_size))


@dataclass(frozen=True)
class DeriveOptions:
    """How the two tuned models and their scores are derived.

    Attributes:
        se: gradient ascent, the safety-enhancement direction.
        osm: gradient descent, the over-safety-mitigation direction.
        directions: which of the two to derive.
        max_length: longest conversation in tokens; longer responses are cut at their end.
        seed: orders the data; whole, below 2**64.
        scores: which scores to write (see :class:`patchc.recipe.Recipe`), each kind once.
        score_samples: conversations whose gradients are summed into the scores.
        optimizer: "adamw", or "adamw8bit" of bitsandbytes (paged on CUDA).
        device: "auto" takes CUDA where there is a device.
        precision: of the products in the model's forward and backward passes (autocast); weights,
            gradients, optimiser and scores are fp32 either way.
        include: regular expressions of the tensors to score; empty means the decoder's linear
            layers.
        exclude: regular expressions of tensors that are not scored.
        shard_bytes: most bytes of tensors in one written file.

    The defaults for learning rates and steps are our own (measured on SmolLM2-135M-Instruct; see
    ``docs/defaults.md``); the paper gives none.

    Raises:
        UsageError: a parameter is of the wrong type or out of range.
    """

    se: TuneOptions = field(
        default_factory=lambda: TuneOptions(learning_rate=1e-5, steps=30, loss_ceiling=6.0)
    )
    osm: TuneOptions = field(default_factory=lambda: TuneOptions(learning_rate=2e-5, steps=40))
    directions: tuple[Direction, ...] = DIRECTIONS
    max_length: int = 512
    seed: int = 0
    scores: tuple[Score, ...] = ("weight",)
    score_samples: int = 128
    optimizer: Optimizer = "adamw"
    device: Device = "auto"
    precision: Precision = "float32"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    shard_bytes: int = 5_000_000_000

    def __post_init__(self) -> None:
        for name in ("max_length", "score_samples", "shard_bytes"):
            checks.count(name, getattr(self, name))
        checks.seed(self.seed)
        checks.choice("optimizer", self.optimizer, ("adamw", "adamw8bit"))
        checks.choice("device", self.device, ("auto", "cpu", "cuda"))
        checks.choice("precision", self.precision, ("float32", "bfloat16"))
        _check_selection("directions", self.directions, DIRECTIONS)
        _check_selection("scores", self.scores, SCORES)

    def tuning(self, direction: Direction) -> TuneOptions:
        """The fine-tuning options of one direction."""
        return self.se if direction == "se" else self.osm

    def to_json(self) -> dict[str, Any]:
        """The options as JSON values."""
        return asdict(self)


def _check_positive(name: str, value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < float(value) < math.inf:  # type: ignore[arg-type]
        raise UsageError(f"{name} is {value!r}; it must be a finite number above 0")


def _check_selection(name: str, chosen: tuple[str, ...], choices: tuple[str, ...]) -> None:
    for one in chosen:
        checks.choice(name, one, choices)
    if not chosen or len(set(chosen)) != len(chosen):
        raise UsageError(
            f"{name} are {chosen!r}; name at least one of {', '.join(choices)}, and none twice"
        )
