"""One derivation from start to end: load, tune, score, write, for each direction."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from patchc.checkpoint import Checkpoint
from patchc.derivation.base_model import load_model, load_stored, load_tokenizer, name_tensors
from patchc.derivation.conversations import ConversationFile
from patchc.derivation.examples import Example, encode
from patchc.derivation.options import DeriveOptions, Direction
from patchc.derivation.output import RECORD, copy_side_files, write_json, write_shards
from patchc.derivation.scores import gradient_sums, scored_tensors, snip_score
from patchc.derivation.session import choose_device, quiet_transformers, reproducible
from patchc.derivation.tune import Tuning, tune
from patchc.files import staged_folder
from patchc.progress import Progress
from patchc.recipe.safepatching import Score
from patchc.select.inputs import scores_stem
from patchc.version import __version__


@dataclass(frozen=True)
class DirectionReport:
    """One derived direction.

    Attributes:
        direction: "se" or "osm".
        path: its folder.
        steps: optimiser steps taken.
        first_loss: mean loss of the first batch, before any step.
        last_loss: mean loss of the last batch seen.
        at_ceiling: whether the loss ceiling ended the tuning.
        scored_tensors: tensors with scores.
        scored_samples: conversations whose gradients were summed.
    """

    direction: Direction
    path: Path
    steps: int
    first_loss: float
    last_loss: float
    at_ceiling: bool
    scored_tensors: int
    scored_samples: int


def derive_directions(
    base: Checkpoint, data: ConversationFile, out: Path, options: DeriveOptions, progress: Progress
) -> tuple[DirectionReport, ...]:
    """Derive the chosen directions, each into its own folder below ``out``.

    Raises:
        DeriveError, UnsupportedInputError, UsageError, StorageError: see the called functions.
    """
    device = choose_device(options.device)
    tokenizer = load_tokenizer(base.path)
    examples = [encode(tokenizer, one, options.max_length) for one in data.conversations]
    with reproducible(device, options.seed), quiet_transformers():
        return tuple(
            _derive(base, data, examples, out / direction, direction, options, device, progress)
            for direction in options.directions
        )


def _derive(
    base: Checkpoint,
    data: ConversationFile,
    examples: list[Example],
    out: Path,
    direction: Direction,
    options: DeriveOptions,
    device: torch.device,
    progress: Progress,
) -> DirectionReport:
    model = load_model(base.path, device)
    tensors = name_tensors(model, base)
    chosen = scored_tensors(tensors, options)
    count = min(options.score_samples, len(examples))
    sample = random.Random(options.seed).sample(examples, count)
    sums = {}
    if any(kind.startswith("base-") for kind in options.scores):
        sums["base"] = gradient_sums(model, chosen, sample, f"base for {direction}", progress)
    tuning = tune(model, examples, direction, options, progress)
    if not all(kind.startswith("base-") for kind in options.scores):
        sums["tuned"] = gradient_sums(model, chosen, sample, direction, progress)
    record = _record(base, data, direction, options, device, tuning, count)
    with staged_folder(out) as folder:
        copy_side_files(base, folder)
        write_shards(
            folder,
            "model",
            {name: 4 * info.words for name, info in base.tensors.items()},
            lambda name: tensors[name] if name in tensors else load_stored(base, name),
            options.shard_bytes,
        )
        sizes = {name: 4 * tensor.numel() for name, tensor in chosen.items()}
        for kind in options.scores:
            score = partial(_score, kind, direction, base, chosen, sums)
            write_shards(folder, scores_stem(kind), sizes, score, options.shard_bytes)
        write_json(folder / RECORD, record)
    return DirectionReport(
        direction=direction,
        path=out,
        steps=len(tuning.losses),
        first_loss=tuning.losses[0],
        last_loss=tuning.last_loss,
        at_ceiling=tuning.ceiling_loss is not None,
        scored_tensors=len(chosen),
        scored_samples=count,
    )


def _score(
    kind: Score,
    direction: Direction,
    base: Checkpoint,
    chosen: Mapping[str, Tensor],
    sums: Mapping[str, Mapping[str, Tensor]],
    name: str,
) -> Tensor:
    """The scores of one tensor: of the base's or the tuned model's weights, or of the delta."""
    of_base = kind.startswith("base-")
    values = chosen[name]
    if kind != "weight":
        stored = load_stored(base, name).to(values.device, torch.float32)
        values = stored if kind == "base-weight" else values - stored
    gradients = sums["base" if of_base else "tuned"][name]
    return snip_score(f"{direction}: tensor {name!r}", gradients, values)


def _record(
    base: Checkpoint,
    data: ConversationFile,
    direction: Direction,
    options: DeriveOptions,
    device: torch.device,
    tuning: Tuning,
    scored_samples: int,
) -> dict[str, Any]:
    return {
        "kind": "derive",
        "direction": direction,
        "base": base.path.resolve().name,
        "data": {"name": data.name, "blake3": data.digest, "examples": len(data.conversations)},
        "options": options.to_json(),
        "device": device.type,
        "scored_samples": scored_samples,
        "tuning": {**asdict(tuning), "steps": len(tuning.losses), "last_loss": tuning.last_loss},
        "versions": {
            "patchc": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
