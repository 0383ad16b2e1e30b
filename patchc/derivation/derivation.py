"""One derivation from start to end: load, tune, score, write, for each direction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from patchc.checkpoint import Checkpoint
from patchc.derivation.anchor import Anchor, anchors_of
from patchc.derivation.base_model import load_model, load_stored, load_tokenizer, name_tensors
from patchc.derivation.derive_options import DeriveOptions, Direction
from patchc.derivation.direct import MarginTuning
from patchc.derivation.examples import encode
from patchc.derivation.material import Material
from patchc.derivation.output import RECORD, copy_side_files, write_json, write_shards
from patchc.derivation.responses import ResponseTuning
from patchc.derivation.scores import gradient_sums, scored_tensors, snip_score
from patchc.derivation.session import choose_device, quiet_transformers, reproducible
from patchc.derivation.tune import Tuning
from patchc.files import staged_folder
from patchc.progress import Progress
from patchc.recipe.safepatching import Score
from patchc.selection.safepatching.inputs import scores_stem
from patchc.version import __version__


@dataclass(frozen=True)
class DirectionReport:
    """One derived direction.

    Attributes:
        direction: "se", "osm" or "margin".
        path: its folder.
        steps: optimiser steps taken.
        first_loss: mean loss of the first batch, before any step.
        last_loss: mean loss of the last batch seen.
        at_ceiling: whether the loss ceiling ended the tuning.
        scored_tensors: tensors with scores.
        scored_samples: conversations or requests whose gradients were summed.
        anchors: replies of the base that held the tuning.
    """

    direction: Direction
    path: Path
    steps: int
    first_loss: float
    last_loss: float
    at_ceiling: bool
    scored_tensors: int
    scored_samples: int
    anchors: int = 0


def derive_directions(
    base: Checkpoint, material: Material, out: Path, options: DeriveOptions, progress: Progress
) -> tuple[DirectionReport, ...]:
    """Derive the objective's directions, each into its own folder below ``out``.

    Raises:
        DeriveError, UnsupportedInputError, UsageError, StorageError: see the called functions.
    """
    device = choose_device(options.device)
    tuner = _tuner(base, material, options)
    with reproducible(device, options.seed), quiet_transformers():
        return tuple(
            _derive(base, material, tuner, out / direction, direction, options, device, progress)
            for direction in options.folders
        )


def _tuner(
    base: Checkpoint, material: Material, options: DeriveOptions
) -> ResponseTuning | MarginTuning:
    if material.openings:
        return MarginTuning(material.labelled, material.openings, options)
    tokenizer = load_tokenizer(base.path)
    examples = [encode(tokenizer, one, options.max_length) for one in material.conversations]
    return ResponseTuning(examples, options)


def _derive(
    base: Checkpoint,
    material: Material,
    tuner: ResponseTuning | MarginTuning,
    out: Path,
    direction: Direction,
    options: DeriveOptions,
    device: torch.device,
    progress: Progress,
) -> DirectionReport:
    model = load_model(base.path, device, _held_in(base, options))
    tensors = name_tensors(model, base)
    chosen = scored_tensors(tensors, options)
    anchors = _anchors(model, material, options)
    losses = tuner.sample_losses(model)
    score = partial(gradient_sums, model, chosen, losses, progress)
    sums = {}
    if any(kind.startswith("base-") for kind in options.scores):
        sums["base"] = score(f"base for {direction}")
    tuning = tuner.tune(model, direction, anchors, progress)
    if not all(kind.startswith("base-") for kind in options.scores):
        sums["tuned"] = score(direction)
    record = _record(base, material, direction, options, device, tuning, len(losses))
    with staged_folder(out) as folder:
        copy_side_files(base, folder)
        write_shards(
            folder,
            "model",
            {name: 4 * info.words for name, info in base.tensors.items()},
            partial(_value, tuner, tensors, base),
            options.shard_bytes,
        )
        sizes = {name: 4 * tensor.numel() for name, tensor in chosen.items()}
        for kind in options.scores:
            load = partial(_score, kind, direction, tuner, base, chosen, sums)
            write_shards(folder, scores_stem(kind), sizes, load, options.shard_bytes)
        write_json(folder / RECORD, record)
    return DirectionReport(
        direction=direction,
        path=out,
        steps=len(tuning.losses),
        first_loss=tuning.losses[0],
        last_loss=tuning.last_loss,
        at_ceiling=tuning.ceiling_loss is not None,
        scored_tensors=len(chosen),
        scored_samples=len(losses),
        anchors=len(anchors),
    )


def _held_in(base: Checkpoint, options: DeriveOptions) -> torch.dtype:
    """What the model is held in: fp32, or bf16 where the retained entries alone are."""
    words: Counter[str] = Counter()
    for tensor in base.tensors.values():
        words[tensor.dtype.name] += tensor.words
    of_bf16 = words.most_common(1)[0][0] == "BF16"
    return torch.bfloat16 if of_bf16 and options.retain < 1 else torch.float32


def _anchors(model: Any, material: Material, options: DeriveOptions) -> list[Anchor]:
    prompts = [prompt for prompt, _ in material.anchors]
    replies = [reply for _, reply in material.anchors]
    return anchors_of(model, prompts, replies, options.precision)


def _value(
    tuner: ResponseTuning | MarginTuning,
    tensors: Mapping[str, Tensor],
    base: Checkpoint,
    name: str,
) -> Tensor:
    """A tensor of the tuned model as it is written."""
    if name not in tensors:
        return load_stored(base, name)
    tensor = tensors[name]
    return tuner.value(name, tensor).float() if tensor.is_floating_point() else tensor


def _score(
    kind: Score,
    direction: Direction,
    tuner: ResponseTuning | MarginTuning,
    base: Checkpoint,
    chosen: Mapping[str, Tensor],
    sums: Mapping[str, Mapping[str, Tensor]],
    name: str,
) -> Tensor:
    """The scores of one tensor: of the base's or the tuned model's weights, or of the delta."""
    of_base = kind.startswith("base-")
    values = tuner.value(name, chosen[name]).float()
    if kind != "weight":
        stored = load_stored(base, name).to(values.device, torch.float32)
        values = stored if kind == "base-weight" else values - stored
    gradients = sums["base" if of_base else "tuned"][name]
    return snip_score(f"{direction}: tensor {name!r}", gradients, values)


def _record(
    base: Checkpoint,
    material: Material,
    direction: Direction,
    options: DeriveOptions,
    device: torch.device,
    tuning: Tuning,
    scored_samples: int,
) -> dict[str, Any]:
    return {
        "kind": "derive",
        "objective": options.objective,
        "direction": direction,
        "base": base.path.resolve().name,
        **material.record,
        "anchors": len(material.anchors),
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
