"""One derivation from start to end: for each direction, load the base, tune, score and write.

The directions are the tuned models to make: "se" for safety enhancement (SE), "osm" for over-safety
mitigation (OSM), or "margin", which serves as SE. A patch is later built from the deltas, and the
scores select its entries.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import torch

from patchc.checkpoint import Checkpoint
from patchc.derivation.base_model import load_tokenizer
from patchc.derivation.budget import Budget
from patchc.derivation.derive_options import DeriveOptions, Direction
from patchc.derivation.derive_plan import DerivePlan
from patchc.derivation.direction import DirectionDerivation, Material
from patchc.derivation.direction_report import DirectionReport
from patchc.derivation.examples import encode
from patchc.derivation.margin_tuning import MarginTuning
from patchc.derivation.planning import Planner
from patchc.derivation.response_tuning import ResponseTuning
from patchc.derivation.session import choose_device, quiet_transformers, reproducible
from patchc.derivation.trainer import IN_MEMORY, Layout, Workplace
from patchc.layered.allocation import lean_allocation
from patchc.layered.from_folder import check_tokens, count_words, load_config
from patchc.layered.scratch import Scratch
from patchc.output_place import reserved_path
from patchc.progress import Progress
from patchc.reserved import clear_leftovers
from patchc.selection.component_record import RECORD, identify_base


def derive_directions(
    base: Checkpoint,
    material: Material,
    out: Path,
    options: DeriveOptions,
    progress: Progress,
    layout: Layout = IN_MEMORY,
    scratch: Scratch | None = None,
) -> tuple[DirectionReport, ...]:
    """Derive the objective's directions, each into its own folder below ``out``.

    A direction that an earlier run with this scratch folder has written is not derived again.

    Raises:
        DeriveError, UnsupportedInputError, UsageError, StorageError: see the called functions.
    """
    place = _workplace(base, options, layout, scratch)
    objective = _objective(base, material, options)
    identity = identify_base(base, progress)
    with ExitStack() as stack:
        stack.enter_context(reproducible(place.device, options.seed))
        stack.enter_context(quiet_transformers())
        if layout.streams:
            stack.enter_context(lean_allocation())
        return tuple(
            _written(scratch, direction, out / direction)
            or DirectionDerivation(
                place, material, objective, direction, options, progress, identity
            ).derive(out / direction)
            for direction in options.folders
        )


def plan_directions(
    base: Checkpoint,
    material: Material,
    options: DeriveOptions,
    budget: Budget,
    output_bytes: int,
    measures: bool,
    streams: bool = False,
) -> tuple[Layout, DerivePlan]:
    """Plan a derivation within a budget, without writing anything.

    ``measures`` estimates the time too; ``streams`` says that it must stream.

    Raises:
        UsageError, StorageError: the budget is too small.
        DeriveError, UnsupportedInputError: as the derivation.
    """
    place = _workplace(base, options, IN_MEMORY, None)
    objective = _objective(base, material, options)
    with ExitStack() as stack:
        stack.enter_context(reproducible(place.device, options.seed))
        stack.enter_context(quiet_transformers())
        stack.enter_context(lean_allocation())
        planner = Planner(place, objective, material.anchors, options)
        stack.callback(planner.close)
        need = planner.choose(budget, streams)
        seconds = planner.seconds(need) if measures else (None, None)
    plan = DerivePlan(
        streams=need.layout.streams,
        recomputes=not need.layout.keeps,
        optimizer=need.optimizer,
        device=place.device.type,
        memory_bytes=need.memory_bytes,
        device_bytes=need.device_bytes,
        scratch_bytes=need.scratch_bytes,
        output_bytes=output_bytes,
        step_bytes=need.step_bytes,
        step_seconds=seconds[0],
        score_seconds=seconds[1],
    )
    return need.layout, plan


def _workplace(
    base: Checkpoint, options: DeriveOptions, layout: Layout, scratch: Scratch | None
) -> Workplace:
    stays_bf16 = base.main_dtype == "BF16" and options.objective == "margin" and options.retain < 1
    dtype = torch.bfloat16 if stays_bf16 else torch.float32
    device, autocast = choose_device(options.device), options.precision == "bfloat16"
    return Workplace(base, device, dtype, autocast, layout, scratch)


def _objective(
    base: Checkpoint, material: Material, options: DeriveOptions
) -> ResponseTuning | MarginTuning:
    words = count_words(base.path, load_config(base.path, base))
    if material.openings:
        texts = [*(one.prompt for one in material.labelled), *material.openings.sequences]
        check_tokens(base.path, texts, words)
        return MarginTuning(material.labelled, material.openings, options)
    tokenizer = load_tokenizer(base.path)
    examples = encode(tokenizer, material.conversations, options.max_length)
    check_tokens(base.path, [one.prompt + one.response for one in examples], words)
    return ResponseTuning(examples, options)


def _written(scratch: Scratch | None, direction: Direction, out: Path) -> DirectionReport | None:
    """Return the report of a direction that an earlier run has written; None if none has."""
    report = scratch.notes.get(f"report-{direction}") if scratch else None
    if scratch is None or report is None or not (out / RECORD).exists():
        return None
    scratch.remove_files(f"{direction}-")
    clear_leftovers(reserved_path(out))  # the run may have been killed when it was just written
    return DirectionReport(**{**report, "path": out})
