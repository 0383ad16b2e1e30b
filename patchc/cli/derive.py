"""``patchc derive``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchc.cli.options import Device, Json

if TYPE_CHECKING:
    from patchc.derivation.options import DeriveOptions
    from patchc.derivation.run import DirectionReport

_SE = "Safety enhancement (gradient ascent)"
_OSM = "Over-safety mitigation (gradient descent)"
_TUNING = "Both directions"
_SCORES = "Scores"


class Directions(StrEnum):
    """Which directions to derive."""

    BOTH = "both"
    SE = "se"
    OSM = "osm"


class Optimizer(StrEnum):
    """The optimisers on offer."""

    ADAMW = "adamw"
    ADAMW8BIT = "adamw8bit"


class ScoreKind(StrEnum):
    """The scores that can be written."""

    WEIGHT = "weight"
    DELTA = "delta"
    BASE_WEIGHT = "base-weight"
    BASE_DELTA = "base-delta"


class Precision(StrEnum):
    """How the model's products are computed."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def derive(
    base: Annotated[Path, typer.Argument(help="The aligned model's folder.", show_default=False)],
    data: Annotated[
        Path,
        typer.Option(
            help="JSONL of requests and compliant answers: prompt and response, or messages.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="Folder to hold se and osm.", show_default=False),
    ],
    directions: Annotated[Directions, typer.Option(help="What to derive.")] = Directions.BOTH,
    se_learning_rate: Annotated[float, typer.Option(help="Step size.", rich_help_panel=_SE)] = 1e-5,
    se_steps: Annotated[int, typer.Option(help="Optimiser steps.", rich_help_panel=_SE)] = 30,
    se_epochs: Annotated[
        float | None,
        typer.Option(help="Passes over the data, in place of steps.", rich_help_panel=_SE),
    ] = None,
    loss_ceiling: Annotated[
        float,
        typer.Option(help="End the ascent where a batch's loss reaches this.", rich_help_panel=_SE),
    ] = 6.0,
    osm_learning_rate: Annotated[
        float, typer.Option(help="Step size.", rich_help_panel=_OSM)
    ] = 2e-5,
    osm_steps: Annotated[int, typer.Option(help="Optimiser steps.", rich_help_panel=_OSM)] = 40,
    osm_epochs: Annotated[
        float | None,
        typer.Option(help="Passes over the data, in place of steps.", rich_help_panel=_OSM),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="Conversations in a step.", rich_help_panel=_TUNING)
    ] = 12,
    clip: Annotated[
        float,
        typer.Option(
            help="Largest norm of the gradient; 0 does not clip.", rich_help_panel=_TUNING
        ),
    ] = 1.0,
    max_length: Annotated[
        int, typer.Option(help="Longest conversation, in tokens.", rich_help_panel=_TUNING)
    ] = 512,
    seed: Annotated[int, typer.Option(help="Orders the data.", rich_help_panel=_TUNING)] = 0,
    optimizer: Annotated[
        Optimizer, typer.Option(help="adamw8bit needs bitsandbytes.", rich_help_panel=_TUNING)
    ] = Optimizer.ADAMW,
    device: Annotated[
        Device, typer.Option(help="Where to compute.", rich_help_panel=_TUNING)
    ] = Device.AUTO,
    precision: Annotated[
        Precision,
        typer.Option(
            help="Of the model's products; bfloat16 is faster, weights stay in fp32.",
            rich_help_panel=_TUNING,
        ),
    ] = Precision.FLOAT32,
    score: Annotated[
        list[ScoreKind] | None,
        typer.Option(
            help="Scores to write: of the weight or of the delta, on the tuned model or on the "
            "base; may be repeated.",
            show_default="weight",
            rich_help_panel=_SCORES,
        ),
    ] = None,
    score_samples: Annotated[
        int, typer.Option(help="Conversations that enter the scores.", rich_help_panel=_SCORES)
    ] = 128,
    include: Annotated[
        list[str] | None,
        typer.Option(
            help="Score the tensors whose name matches this regular expression; may be repeated.",
            show_default="the decoder's linear layers",
            rich_help_panel=_SCORES,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="Do not score tensors whose name matches this expression; may be repeated.",
            rich_help_panel=_SCORES,
        ),
    ] = None,
    shard_bytes: Annotated[
        int, typer.Option(help="Most bytes of tensors in one written file.")
    ] = 5_000_000_000,
    json: Json = False,
) -> None:
    """Fine-tune BASE both ways and score its weights (needs the derive extra).

    Example: patchc derive models/chat --data restricted.jsonl -o work
    """
    import patchc
    from patchc.cli.output import print_facts, print_json, progress_bar
    from patchc.derivation.options import DIRECTIONS, DeriveOptions, TuneOptions

    shared: dict[str, Any] = {"batch_size": batch_size, "clip": clip or None}
    options = DeriveOptions(
        se=TuneOptions(
            se_learning_rate, se_steps, epochs=se_epochs, loss_ceiling=loss_ceiling, **shared
        ),
        osm=TuneOptions(osm_learning_rate, osm_steps, epochs=osm_epochs, **shared),
        directions=tuple(d for d in DIRECTIONS if directions in (Directions.BOTH, d)),
        max_length=max_length,
        seed=seed,
        scores=tuple(kind.value for kind in score or [ScoreKind.WEIGHT]),
        score_samples=score_samples,
        optimizer=optimizer.value,
        device=device.value,
        precision=precision.value,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        shard_bytes=shard_bytes,
    )
    with progress_bar() as progress:
        report = patchc.derive(base, data, out, options=options, progress=progress)
    if json:
        print_json(report)
        return
    for direction in report.directions:
        print_facts(f"derive: wrote {direction.path}", _facts(direction, options))


def _facts(report: DirectionReport, options: DeriveOptions) -> dict[str, object]:
    planned = "stopped at the loss ceiling" if report.at_ceiling else "all that were asked for"
    return {
        "steps": f"{report.steps} ({planned}), {options.optimizer}",
        "loss": f"{report.first_loss:.3f} before, {report.last_loss:.3f} at the end",
        "scores": f"{report.scored_tensors} tensors from {report.scored_samples} conversations",
    }
