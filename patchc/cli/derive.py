"""``patchc derive``."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from patchc.cli.options import Device, Json
from patchc.derivation.derive_options import (
    DIRECTIONS,
    DeriveOptions,
    Objective,
    Optimizer,
    Precision,
    TuneOptions,
)

if TYPE_CHECKING:
    from patchc.derivation.derivation import DirectionReport
    from patchc.verbs.derive import DeriveReport

_DATA = "What to learn from"
_SE = "Safety enhancement: pair (gradient ascent), refusals, npo"
_OSM = "Over-safety mitigation: pair (gradient descent), answers"
_MARGIN = "Refusal margin: margin"
_TUNING = "All objectives"
_SCORES = "Scores"

_DEFAULTS = DeriveOptions()


class ScoreKind(StrEnum):
    """The scores that can be written."""

    WEIGHT = "weight"
    DELTA = "delta"
    BASE_WEIGHT = "base-weight"
    BASE_DELTA = "base-delta"


def _option(panel: str, text: str, default: str | bool = True) -> Any:
    return typer.Option(help=text, show_default=default, rich_help_panel=panel)


def _rate(panel: str) -> Any:
    return _option(panel, "Step size.")


def _steps(panel: str) -> Any:
    return _option(panel, "Optimiser steps.")


def _epochs(panel: str) -> Any:
    return _option(panel, "Passes over the data, in place of steps.")


def derive(
    base: Annotated[Path, typer.Argument(help="The aligned model's folder.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="Folder to hold se, osm or margin.", show_default=False),
    ],
    objective: Annotated[
        Objective,
        typer.Option(
            help="pair: ascent and descent on the answers to DATA. refusals: descent on a refusal "
            "of DATA. answers: descent on the answers to HARMLESS. npo: negative preference "
            "optimisation on DATA, in place of ascent. margin: raise the odds that DATA is refused "
            "and HARMLESS is not; needs no answers."
        ),
    ] = _DEFAULTS.objective,
    directions: Annotated[
        Literal["both", "se", "osm"], typer.Option(help="Which directions of the pair to derive.")
    ] = "both",
    data: Annotated[
        Path | None,
        _option(
            _DATA,
            "Harmful requests. pair, npo: JSONL of prompt and response (a compliant answer), "
            "or messages. refusals, margin: requests as evaluate takes them.",
            False,
        ),
    ] = None,
    harmless: Annotated[
        Path | None,
        _option(
            _DATA,
            "Harmless look-alikes. answers: prompt and response, or messages. margin: "
            "requests as evaluate takes them.",
            False,
        ),
    ] = None,
    anchor: Annotated[
        Path | None,
        _option(
            _DATA,
            "Harmless requests, to hold the model to the base where it answers them. margin "
            "learns to answer the others.",
            False,
        ),
    ] = None,
    anchor_weight: Annotated[
        float | None,
        _option(
            _DATA,
            "Factor of the KL divergence from the base that is added to the loss.",
            f"0; margin: {DeriveOptions(objective='margin').weight_of_anchor:g}",
        ),
    ] = None,
    refusal: Annotated[
        str | None,
        _option(_DATA, "The refusal that refusals learns.", "the base's own most frequent one"),
    ] = None,
    opening: Annotated[
        list[str] | None,
        _option(
            _DATA,
            "How refusals begin, for margin; may be repeated.",
            "found in the base's own replies",
        ),
    ] = None,
    judge: Annotated[
        str,
        _option(
            _DATA,
            "Finds refusals among the base's replies: phrases, module:function, or "
            "hf:PATH[=LABEL].",
        ),
    ] = "phrases",
    se_learning_rate: Annotated[float, _rate(_SE)] = _DEFAULTS.se.learning_rate,
    se_steps: Annotated[int, _steps(_SE)] = _DEFAULTS.se.steps,
    se_epochs: Annotated[float | None, _epochs(_SE)] = _DEFAULTS.se.epochs,
    loss_ceiling: Annotated[
        float | None,
        _option(_SE, "End the ascent where a batch's loss reaches this.", "never"),
    ] = _DEFAULTS.se.loss_ceiling,
    npo_beta: Annotated[
        float,
        _option(_SE, "β of npo: the smaller, the closer to plain ascent."),
    ] = _DEFAULTS.npo_beta,
    osm_learning_rate: Annotated[float, _rate(_OSM)] = _DEFAULTS.osm.learning_rate,
    osm_steps: Annotated[int, _steps(_OSM)] = _DEFAULTS.osm.steps,
    osm_epochs: Annotated[float | None, _epochs(_OSM)] = _DEFAULTS.osm.epochs,
    margin_learning_rate: Annotated[float, _rate(_MARGIN)] = _DEFAULTS.margin.learning_rate,
    margin_steps: Annotated[int, _steps(_MARGIN)] = _DEFAULTS.margin.steps,
    margin_epochs: Annotated[float | None, _epochs(_MARGIN)] = _DEFAULTS.margin.epochs,
    margin_target: Annotated[
        float,
        _option(_MARGIN, "Log-odds of a refusal beyond which a request is left alone."),
    ] = _DEFAULTS.margin_target,
    retain: Annotated[
        float,
        _option(
            _MARGIN,
            "Share of the entries that is tuned, drawn as `build --recipe dare --density P "
            "--no-rescale` keeps them.",
        ),
    ] = _DEFAULTS.retain,
    batch_size: Annotated[
        int | None,
        _option(
            _TUNING,
            "Conversations or requests in a step.",
            f"{_DEFAULTS.se.batch_size}; margin: {_DEFAULTS.margin.batch_size}",
        ),
    ] = None,
    clip: Annotated[
        float,
        _option(_TUNING, "Largest norm of the gradient; 0 does not clip."),
    ] = _DEFAULTS.se.clip or 0.0,
    max_length: Annotated[
        int, _option(_TUNING, "Longest conversation, in tokens.")
    ] = _DEFAULTS.max_length,
    seed: Annotated[int, _option(_TUNING, "Orders the data.")] = _DEFAULTS.seed,
    optimizer: Annotated[
        Optimizer, _option(_TUNING, "adamw8bit needs bitsandbytes.")
    ] = _DEFAULTS.optimizer,
    device: Annotated[Device, _option(_TUNING, "Where to compute.")] = Device.AUTO,
    precision: Annotated[
        Precision,
        _option(
            _TUNING, "Of the model's products; bfloat16 is faster, what is tuned stays in fp32."
        ),
    ] = _DEFAULTS.precision,
    score: Annotated[
        list[ScoreKind] | None,
        _option(
            _SCORES,
            "Scores to write: of the weight or of the delta, on the tuned model or on the "
            "base; may be repeated.",
            ", ".join(_DEFAULTS.scores),
        ),
    ] = None,
    score_samples: Annotated[
        int,
        _option(_SCORES, "Conversations or requests that enter the scores."),
    ] = _DEFAULTS.score_samples,
    include: Annotated[
        list[str] | None,
        _option(
            _SCORES,
            "Score the tensors whose name matches this regular expression; may be repeated. "
            "margin trains these alone.",
            "the decoder's linear layers",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        _option(
            _SCORES, "Do not score tensors whose name matches this expression; may be repeated."
        ),
    ] = None,
    shard_bytes: Annotated[
        int, typer.Option(help="Most bytes of tensors in one written file.")
    ] = _DEFAULTS.shard_bytes,
    json: Json = False,
) -> None:
    """Fine-tune BASE by what you have and score its weights (needs the derive extra).

    Example: patchc derive models/chat --data restricted.jsonl -o work

    Example: patchc derive models/chat --objective margin --data h.jsonl --harmless s.jsonl -o work
    """
    import patchc
    from patchc.cli.output import print_facts, print_json, progress_bar

    def tuning(of: TuneOptions, rate: float, steps: int, epochs: float | None) -> TuneOptions:
        size = of.batch_size if batch_size is None else batch_size
        return TuneOptions(rate, steps, epochs, size, clip or None)

    options = DeriveOptions(
        objective=objective,
        se=replace(
            tuning(_DEFAULTS.se, se_learning_rate, se_steps, se_epochs), loss_ceiling=loss_ceiling
        ),
        osm=tuning(_DEFAULTS.osm, osm_learning_rate, osm_steps, osm_epochs),
        margin=tuning(_DEFAULTS.margin, margin_learning_rate, margin_steps, margin_epochs),
        directions=tuple(d for d in DIRECTIONS if directions in ("both", d)),
        refusal=refusal,
        openings=tuple(opening or ()),
        npo_beta=npo_beta,
        margin_target=margin_target,
        retain=retain,
        anchor_weight=anchor_weight,
        max_length=max_length,
        seed=seed,
        scores=tuple(kind.value for kind in score) if score else _DEFAULTS.scores,
        score_samples=score_samples,
        optimizer=optimizer,
        device=device.value,
        precision=precision,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        shard_bytes=shard_bytes,
    )
    with progress_bar() as progress:
        report = patchc.derive(
            base,
            data,
            out,
            harmless=harmless,
            anchor=anchor,
            options=options,
            judge=judge,
            progress=progress,
        )
    if json:
        print_json(report)
        return
    for direction in report.directions:
        print_facts(f"derive: wrote {direction.path}", _facts(report, direction, options))


def _facts(
    report: DeriveReport, direction: DirectionReport, options: DeriveOptions
) -> dict[str, object]:
    planned = "stopped at the loss ceiling" if direction.at_ceiling else "all that were asked for"
    facts: dict[str, object] = {"objective": report.objective}
    if report.refusal:
        facts["refusal"] = report.refusal
    if report.openings:
        facts["openings"] = ", ".join(map(repr, report.openings))
    if direction.anchors:
        facts["anchors"] = f"{direction.anchors} replies of the base"
    return facts | {
        "steps": f"{direction.steps} ({planned}), {options.optimizer}",
        "loss": f"{direction.first_loss:.3f} before, {direction.last_loss:.3f} at the end",
        "scores": f"{direction.scored_tensors} tensors from {direction.scored_samples} samples",
    }
