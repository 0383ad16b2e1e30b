"""``patchc derive``."""

from __future__ import annotations

from dataclasses import fields, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from patchc.cli.options import BaseFolder, Device, DryRun, Json, option, parse_size
from patchc.derivation.derive_options import (
    DIRECTIONS,
    DeriveOptions,
    Objective,
    Optimizer,
    Precision,
    TuneOptions,
)

_data = partial(option, panel="What to learn from")
_of_se = partial(option, panel="Safety enhancement: pair (gradient ascent), refusals, npo")
_of_osm = partial(option, panel="Over-safety mitigation: pair (gradient descent), answers")
_of_margin = partial(option, panel="Refusal margin: margin")
_of_all = partial(option, panel="All objectives")
_of_scores = partial(option, panel="Scores")
_of_memory = partial(option, panel="Memory and scratch files")
_of_output = partial(option, panel="Compact components")

_DEFAULTS = DeriveOptions()
_RATE = "Step size."
_STEPS = "Optimiser steps."
_EPOCHS = "Passes over the data, in place of steps."


class ScoreKind(StrEnum):
    """The scores that can be written; Typer takes no list of literals."""

    WEIGHT = "weight"
    DELTA = "delta"
    BASE_WEIGHT = "base-weight"
    BASE_DELTA = "base-delta"


def derive(
    base: BaseFolder,
    out: Annotated[Path, option("Folder to hold se, osm or margin.", "-o", "--out")],
    objective: Annotated[
        Objective,
        option(
            "pair: ascent and descent on the answers to DATA. refusals: descent on a refusal of "
            "DATA. answers: descent on the answers to HARMLESS. npo: negative preference "
            "optimisation on DATA, in place of ascent. margin: raise the odds that DATA is refused "
            "and HARMLESS is not; needs no answers.",
            metavar="NAME",
        ),
    ] = _DEFAULTS.objective,
    directions: Annotated[
        Literal["both", "se", "osm"], option("Which directions of the pair to derive.")
    ] = "both",
    data: Annotated[
        Path | None,
        _data(
            "Harmful requests. pair, npo: JSONL of prompt and response (a compliant answer), or "
            "messages. refusals, margin: requests as evaluate takes them."
        ),
    ] = None,
    harmless: Annotated[
        Path | None,
        _data(
            "Harmless look-alikes. answers: prompt and response, or messages. margin: requests as "
            "evaluate takes them."
        ),
    ] = None,
    anchor: Annotated[
        Path | None,
        _data(
            "Harmless requests, to hold the model to the base where it answers them. margin learns "
            "to answer the others."
        ),
    ] = None,
    anchor_weight: Annotated[
        float | None,
        _data(
            "Weight of the KL divergence from the base that is added to the loss.",
            shown=f"0; margin: {DeriveOptions(objective='margin').weight_of_anchor:g}",
        ),
    ] = None,
    refusal: Annotated[
        str | None,
        _data("The refusal that refusals learns.", shown="the base's own most frequent one"),
    ] = None,
    opening: Annotated[
        list[str] | None,
        _data(
            "How refusals begin, for margin; may be repeated.",
            shown="found in the base's own replies",
        ),
    ] = None,
    judge: Annotated[
        str,
        _data(
            "Finds refusals among the base's replies: phrases, module:function, or "
            "hf:MODEL[=LABEL]."
        ),
    ] = "phrases",
    se_learning_rate: Annotated[float, _of_se(_RATE)] = _DEFAULTS.se.learning_rate,
    se_steps: Annotated[int, _of_se(_STEPS)] = _DEFAULTS.se.steps,
    se_epochs: Annotated[float | None, _of_se(_EPOCHS)] = _DEFAULTS.se.epochs,
    loss_ceiling: Annotated[
        float | None, _of_se("End the ascent where a batch's loss reaches this.", shown="never")
    ] = _DEFAULTS.se.loss_ceiling,
    npo_beta: Annotated[
        float, _of_se("β of npo: the smaller, the closer to plain ascent.")
    ] = _DEFAULTS.npo_beta,
    osm_learning_rate: Annotated[float, _of_osm(_RATE)] = _DEFAULTS.osm.learning_rate,
    osm_steps: Annotated[int, _of_osm(_STEPS)] = _DEFAULTS.osm.steps,
    osm_epochs: Annotated[float | None, _of_osm(_EPOCHS)] = _DEFAULTS.osm.epochs,
    margin_learning_rate: Annotated[float, _of_margin(_RATE)] = _DEFAULTS.margin.learning_rate,
    margin_steps: Annotated[int, _of_margin(_STEPS)] = _DEFAULTS.margin.steps,
    margin_epochs: Annotated[float | None, _of_margin(_EPOCHS)] = _DEFAULTS.margin.epochs,
    margin_target: Annotated[
        float, _of_margin("Log-odds of a refusal beyond which a request is left alone.")
    ] = _DEFAULTS.margin_target,
    whole: Annotated[
        bool, _of_margin("Write whole models and scores, with --retain below 1 too.", "--whole")
    ] = False,
    recipe: Annotated[
        str | None,
        _of_output(
            "Method or recipe file to build with: write only the entries that its builds retain.",
            "--for",
            shown="whole models",
        ),
    ] = None,
    retain: Annotated[
        float,
        _of_output(
            "Write only this share of the entries, as build --retain P draws them. margin tunes "
            "them alone, as `build --recipe dare --density P --no-rescale` keeps them."
        ),
    ] = _DEFAULTS.retain,
    retention_seed: Annotated[
        int | None, _of_output("Seed of these draws.", shown="that of --seed")
    ] = None,
    batch_size: Annotated[
        int | None,
        _of_all(
            "Conversations or requests in a step.",
            shown=f"{_DEFAULTS.se.batch_size}; margin: {_DEFAULTS.margin.batch_size}",
        ),
    ] = None,
    clip: Annotated[
        float, _of_all("Largest norm of the gradient; 0 does not clip.")
    ] = _DEFAULTS.se.clip or 0.0,
    max_length: Annotated[int, _of_all("Longest conversation, in tokens.")] = _DEFAULTS.max_length,
    seed: Annotated[int, _of_all("Orders the data.")] = _DEFAULTS.seed,
    optimizer: Annotated[
        Optimizer,
        _of_all("adamw8bit needs bitsandbytes; auto takes adamw unless the disk is too small."),
    ] = _DEFAULTS.optimizer,
    device: Annotated[Device, _of_all("Where to compute.")] = "auto",
    precision: Annotated[
        Precision,
        _of_all("Of the model's products; bfloat16 is faster, what is tuned stays in fp32."),
    ] = _DEFAULTS.precision,
    score: Annotated[
        list[ScoreKind] | None,
        _of_scores(
            "Scores to write: weight or delta, with gradients of the tuned model; base-weight or "
            "base-delta, with those of the base; may be repeated.",
            metavar="NAME",
            shown=", ".join(_DEFAULTS.scores),
        ),
    ] = None,
    score_samples: Annotated[
        int, _of_scores("Conversations or requests that enter the scores.")
    ] = _DEFAULTS.score_samples,
    include: Annotated[
        list[str] | None,
        _of_scores(
            "Score the tensors whose name matches this regular expression; may be repeated. "
            "margin trains these alone.",
            shown="the decoder's linear layers",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        _of_scores("Do not score tensors whose name matches this expression; may be repeated."),
    ] = None,
    shard_bytes: Annotated[
        int, option("Most bytes of tensors in one written file.")
    ] = _DEFAULTS.shard_bytes,
    max_memory: Annotated[
        int | None,
        _of_memory(
            "Memory that the process may take. A number of bytes, or one with kB, MB, GB, KiB, MiB "
            "or GiB.",
            shown="four fifths of what is free",
            parser=parse_size,
            metavar="SIZE",
        ),
    ] = None,
    max_device_memory: Annotated[
        int | None,
        _of_memory(
            "Memory on the CUDA device.",
            shown="nine tenths of what is free",
            parser=parse_size,
            metavar="SIZE",
        ),
    ] = None,
    scratch: Annotated[
        Path | None,
        _of_memory(
            "Folder for scratch files, where the derivation does not fit into the memory.",
            shown="that of --out",
        ),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Fine-tune BASE by what you have and score its weights (needs the derive extra).

    Example: patchc derive models/chat --data restricted.jsonl -o work

    Example: patchc derive models/chat --objective margin --data h.jsonl --harmless s.jsonl -o work
    """
    options = _read_options({**locals()})
    import patchc
    from patchc.cli.derive_facts import direction_facts, next_words, plan_facts
    from patchc.cli.output import (
        print_facts,
        print_json,
        print_next,
        print_next_without_dry_run,
    )
    from patchc.cli.showing_progress import showing_progress
    from patchc.recipe import find_recipe

    with showing_progress() as progress:
        report = patchc.derive(
            base,
            data,
            out,
            harmless=harmless,
            anchor=anchor,
            recipe=find_recipe(recipe) if recipe else None,
            options=options,
            judge=judge,
            max_memory=max_memory,
            max_device_memory=max_device_memory,
            scratch=scratch,
            dry_run=dry_run,
            progress=progress,
        )
    if json:
        print_json(report)
        return
    if dry_run and report.plan:
        print_facts(f"derive: would write {out}", plan_facts(report.plan, options.folders))
        print_next_without_dry_run()
        return
    for direction in report.directions:
        print_facts(f"derive: wrote {direction.path}", direction_facts(report, direction))
    print_next(*next_words(base, out, options, recipe))


def _read_options(given: dict[str, Any]) -> DeriveOptions:
    """Make the options of a derivation from the command's parameters."""

    def tuning(direction: Literal["se", "osm", "margin"]) -> TuneOptions:
        size = given["batch_size"]
        return TuneOptions(
            learning_rate=given[f"{direction}_learning_rate"],
            steps=given[f"{direction}_steps"],
            epochs=given[f"{direction}_epochs"],
            batch_size=_DEFAULTS.tuning(direction).batch_size if size is None else size,
            clip=given["clip"] or None,
        )

    directions = tuple(d for d in DIRECTIONS if given["directions"] in ("both", d))
    same = {one.name: given[one.name] for one in fields(DeriveOptions) if one.name in given}
    return DeriveOptions(
        **same
        | {
            "se": replace(tuning("se"), loss_ceiling=given["loss_ceiling"]),
            "osm": tuning("osm"),
            "margin": tuning("margin"),
            "directions": directions,
            "openings": tuple(given["opening"] or ()),
            "scores": tuple(map(str, given["score"] or _DEFAULTS.scores)),
            "include": tuple(given["include"] or ()),
            "exclude": tuple(given["exclude"] or ()),
        }
    )
