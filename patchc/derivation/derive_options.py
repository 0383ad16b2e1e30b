"""The parameters of a derivation, which fine-tunes the base and scores its weights.

Most objectives make a tuned model for safety enhancement (SE, more refusals) or for over-safety
mitigation (OSM, fewer refusals of harmless requests). The parameters are validated, can be written
as JSON, and need no torch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from patchc.errors import UsageError
from patchc.recipe import checks
from patchc.recipe.safepatching import SCORES, Score
from patchc.runtime.device import device_name
from patchc.selection.compact.holding import Holding

if TYPE_CHECKING:
    import torch

Objective = Literal["pair", "refusals", "answers", "npo", "margin"]
Direction = Literal["se", "osm", "margin"]
Optimizer = Literal["auto", "adamw", "adamw8bit"]
Precision = Literal["float32", "bfloat16"]

DIRECTIONS: tuple[Direction, ...] = ("se", "osm")
"""The directions of the objective "pair"."""

_FOLDERS: dict[Objective, tuple[Direction, ...]] = {
    "refusals": ("se",),
    "answers": ("osm",),
    "npo": ("se",),
    "margin": ("margin",),
}
_ANCHOR_WEIGHT = 10.0
_LARGEST_BATCH = 2**16  # of a larger one, the list alone could fill the memory


@dataclass(frozen=True)
class TuneOptions:
    """How one direction is fine-tuned.

    Attributes:
        learning_rate: constant AdamW step size, above 0.
        steps: optimiser steps, at least 1; used where ``epochs`` is None.
        epochs: passes over the data, above 0; replaces ``steps``.
        batch_size: conversations or requests in a step, from 1 to 65,536.
        clip: largest global norm of the gradient, above 0; None does not clip.
        loss_ceiling: the pair's tuning ends at the first batch whose loss reaches it; None never
            ends early.

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
        checks.count("steps", self.steps)
        checks.count("batch_size", self.batch_size, below=_LARGEST_BATCH + 1)
        checks.positive("learning_rate", self.learning_rate)
        for name in ("epochs", "clip", "loss_ceiling"):
            if getattr(self, name) is not None:
                checks.positive(name, getattr(self, name))

    def step_count(self, examples: int) -> int:
        """Count the optimiser steps over a data set of ``examples`` conversations or requests."""
        if self.epochs is None:
            return self.steps
        steps = min(self.epochs * examples / self.batch_size, 2.0**63)
        return max(1, math.ceil(steps))


@dataclass(frozen=True)
class DeriveOptions:
    """How tuned models and their scores are derived.

    Attributes:
        objective: what the tuning follows.

            * "pair": gradient ascent (``se``) and descent (``osm``) on compliant answers to harmful
              requests, as in the paper;
            * "refusals": descent on a refusal of the harmful requests (``se``);
            * "answers": descent on answers to harmless look-alikes (``osm``);
            * "npo": negative preference optimisation (arXiv 2404.05868) on the compliant answers,
              in place of plain ascent (``se``);
            * "margin": raises the margin of refusal, the log-odds that a reply begins as refusals
              do, on harmful requests, and lowers it on harmless ones (``margin``). Only the
              tensors to score are trained.
        se: how ``se`` is tuned.
        osm: how ``osm`` is tuned.
        margin: how ``margin`` is tuned; half of each batch are requests to refuse.
        directions: which directions of the pair to derive.
        refusal: the refusal that "refusals" teaches; None takes the base's own most frequent one.
        openings: the first words of refusals, for "margin"; empty finds them in the base's own
            replies.
        npo_beta: β of "npo", above 0; the smaller, the closer to plain ascent.
        retain: share p of the entries that are written, in (0, 1]. Below 1, the components are
            compact: they hold the entries that SafePatching retains with this p, and no others.
            "margin" tunes these entries alone, and draws them by ``seed`` as a DARE merge of that
            density does, so that the merge keeps exactly what was tuned; its learning rate is
            divided by ``retain``.
        retention_seed: of the draws of these entries; None means ``seed``, as it is for "margin".
        compact: which entries the components hold, where a recipe decides
            (:func:`patchc.derivation.for_recipe.options_for`).
        whole: whether "margin" writes whole models and scores even with ``retain`` below 1.
        margin_target: the margin beyond which "margin" leaves a request alone, above 0.
        anchor_weight: weight in the loss of the KL divergence from the base on harmless text, at
            least 0; None means 10 for "margin" and 0 elsewhere.
        max_length: longest conversation in tokens; longer responses are cut at their end.
        seed: orders the data; whole, below 2**64.
        scores: which scores to write (see :class:`patchc.recipe.Recipe`), each kind once; merges
            need none, and compact components for merges have none.
        score_samples: conversations or requests whose gradients are summed into the scores.
        optimizer: "adamw", or "adamw8bit" with the 8-bit moments of bitsandbytes; "auto" takes
            adamw, unless its scratch files would not fit on the disk.
        device: "cpu", "cuda", "cuda:1", or a ``torch.device``, which is kept as its name; "auto"
            takes CUDA if there is a device.
        precision: dtype of the products in the model's forward and backward passes (autocast). The
            tuned weights, the optimiser's state and the scores are always fp32. So is the model,
            except that with ``retain`` below 1 a base in bf16 stays in bf16, with the deltas in
            fp32 beside it.
        include: regular expressions of the tensors to score; empty means the decoder's linear
            layers.
        exclude: regular expressions of tensors that are not scored.
        shard_bytes: most bytes of tensors in one written file.

    ``docs/reference/defaults.md`` says where the learning rates and steps come from, since the
    paper gives none. Those of the pair belong to the default scales of
    :class:`patchc.recipe.Recipe`.

    Raises:
        UsageError: a parameter is of the wrong type, out of range, or of another objective.
    """

    objective: Objective = "pair"
    se: TuneOptions = field(default_factory=lambda: TuneOptions(learning_rate=1e-5, steps=24))
    osm: TuneOptions = field(default_factory=lambda: TuneOptions(learning_rate=2e-5, steps=24))
    margin: TuneOptions = field(
        default_factory=lambda: TuneOptions(learning_rate=1e-5, steps=40, batch_size=16)
    )
    directions: tuple[Direction, ...] = DIRECTIONS
    refusal: str | None = None
    openings: tuple[str, ...] = ()
    npo_beta: float = 0.1
    retain: float = 1.0
    retention_seed: int | None = None
    compact: Holding | None = None
    whole: bool = False
    margin_target: float = 4.0
    anchor_weight: float | None = None
    max_length: int = 512
    seed: int = 0
    scores: tuple[Score, ...] = ("weight",)
    score_samples: int = 32
    optimizer: Optimizer = "auto"
    device: str | torch.device = "auto"
    precision: Precision = "float32"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    shard_bytes: int = 5_000_000_000

    def __post_init__(self) -> None:
        for name in ("max_length", "score_samples", "shard_bytes"):
            checks.count(name, getattr(self, name))
        checks.seed("seed", self.seed)
        checks.choice("objective", self.objective, get_args(Objective))
        checks.choice("optimizer", self.optimizer, get_args(Optimizer))
        object.__setattr__(self, "device", device_name(self.device))
        checks.choice("precision", self.precision, get_args(Precision))
        _check_selection("directions", self.directions, DIRECTIONS)
        if self.scores:
            _check_selection("scores", self.scores, SCORES)
        for name in ("npo_beta", "margin_target"):
            checks.positive(name, getattr(self, name))
        if checks.share("retain", self.retain) == 0:
            raise UsageError("retain is 0, so nothing would be tuned; it must be above 0")
        if self.anchor_weight is not None:
            checks.positive("anchor_weight", self.anchor_weight, or_zero=True)
        for name in ("include", "exclude"):
            checks.expressions(name, getattr(self, name))
        for opening in checks.texts("openings", self.openings):
            checks.text("openings", opening)
        if self.refusal is not None:
            checks.text("refusal", self.refusal)
        if self.margin.batch_size < 2:
            raise UsageError(
                "margin: batch_size is 1; it must be at least 2, for requests to refuse and to "
                "answer"
            )
        for name, given, objective in (
            ("directions", self.directions != DIRECTIONS, "pair"),
            ("refusal", self.refusal is not None, "refusals"),
            ("openings", bool(self.openings), "margin"),
            ("whole", checks.truth("whole", self.whole), "margin"),
        ):
            if given and self.objective != objective:
                raise UsageError(
                    f"{name} is for the objective {objective}, and this one is {self.objective}; "
                    "leave it out"
                )
        self._check_compact()
        if self.holding and self.holding.merge:
            object.__setattr__(self, "scores", ())

    def _check_compact(self) -> None:
        if self.compact and (self.retain != 1 or self.retention_seed is not None):
            own = self.objective == "margin" and self.compact == Holding(
                True, self.seed, self.retain
            )
            if not own or self.retention_seed is not None:
                raise UsageError(
                    "a recipe gives p and the seed of the draws; leave retain and retention_seed "
                    "out"
                )
        if self.retention_seed is None:
            return
        checks.seed("retention_seed", self.retention_seed)
        if self.retain == 1:
            raise UsageError("retention_seed is given, and everything is retained; give retain")
        if self.objective == "margin" and self.retention_seed != self.seed:
            raise UsageError(
                f"retention_seed is {self.retention_seed}, and margin draws the entries that it "
                f"tunes by seed, which is {self.seed}; make them the same"
            )

    @property
    def holding(self) -> Holding | None:
        """Which entries the components hold; None for whole models."""
        if self.compact or self.whole or self.retain == 1:
            return self.compact
        if self.objective == "margin":
            return Holding(True, self.seed, self.retain)
        seed = self.seed if self.retention_seed is None else self.retention_seed
        return Holding(False, seed, self.retain)

    @property
    def folders(self) -> tuple[Direction, ...]:
        """The directions that the objective derives, each into a folder of its name."""
        return _FOLDERS.get(self.objective, self.directions)

    @property
    def weight_of_anchor(self) -> float:
        """The weight of the divergence from the base in the loss; 0 without an anchor."""
        if self.anchor_weight is None:
            return _ANCHOR_WEIGHT if self.objective == "margin" else 0.0
        return self.anchor_weight

    def tuning(self, direction: Direction) -> TuneOptions:
        """Return the fine-tuning options of one direction."""
        chosen: TuneOptions = getattr(self, direction)
        return chosen

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON values."""
        return asdict(self)


def _check_selection(name: str, chosen: tuple[str, ...], choices: tuple[str, ...]) -> None:
    for one in chosen:
        checks.choice(name, one, choices)
    if not chosen or len(set(chosen)) != len(chosen):
        raise UsageError(
            f"{name} are {chosen!r:.80}; name at least one of {', '.join(choices)}, and none twice"
        )
