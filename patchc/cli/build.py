"""``patchc build``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from patchc.cli.options import (
    BuildDevice,
    Codec,
    Device,
    DryRun,
    Json,
    MaxMemory,
    OutPatch,
    StepCodec,
    Threads,
)
from patchc.recipe.safepatching import RankAmong, Scope, Score, SetOperation

_SELECTION = "Selection"
_MERGE = "Merge"
_VALUES = "Values"


class Values(StrEnum):
    """What a patch stores."""

    ULP = "ulp"
    ADDITIVE = "additive"


class ValueType(StrEnum):
    """How additive values are stored."""

    BF16 = "bf16"
    INT8 = "int8"


def build(
    base: Annotated[
        Path, typer.Argument(help="The aligned model: folder or file.", show_default=False)
    ],
    out: OutPatch,
    se: Annotated[
        Path | None,
        typer.Option("--se", help="Model tuned by gradient ascent.", show_default=False),
    ] = None,
    osm: Annotated[
        Path | None,
        typer.Option("--osm", help="Model tuned by gradient descent.", show_default=False),
    ] = None,
    se_scores: Annotated[
        Path | None, typer.Option(help="SE scores.", show_default="beside the SE model")
    ] = None,
    osm_scores: Annotated[
        Path | None, typer.Option(help="OSM scores.", show_default="beside the OSM model")
    ] = None,
    tuned: Annotated[
        list[Path] | None,
        typer.Option(
            help="Tuned model to merge; may be repeated. Not for safepatching.", show_default=False
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="Method: safepatching, task-arithmetic, dare, ties or magnitude; or a TOML or "
            "YAML file of options. Options here win over it."
        ),
    ] = "safepatching",
    retain: Annotated[
        float | None,
        typer.Option(
            help="Probability p that an entry is retained.",
            show_default="0.2",
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    top_se: Annotated[
        float | None,
        typer.Option(
            help="Share of entries taken by SE score.",
            show_default="0.15",
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    top_osm: Annotated[
        float | None,
        typer.Option(
            help="Share of entries taken by OSM score.",
            show_default="0.15",
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="Scale of the SE delta.", show_default="5", rich_help_panel=_SELECTION),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(
            help="Scale of the OSM delta.", show_default="4.5", rich_help_panel=_SELECTION
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the retention draws (safepatching, dare).",
            show_default="0",
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    scope: Annotated[
        Scope | None,
        typer.Option(
            help="What a share is counted in: each tensor, each output row, or all at once.",
            show_default="tensor",
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    rank_among: Annotated[
        RankAmong | None,
        typer.Option(
            help="Rank the retained entries, or all and then drop those not retained.",
            show_default="retained",
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    score: Annotated[
        Score | None,
        typer.Option(
            help="Scores of the weight or of the delta, on the tuned model or on the base.",
            show_default="weight",
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    sets: Annotated[
        SetOperation | None,
        typer.Option(
            help="What becomes of the two top sets; se and osm need that component alone.",
            show_default="difference",
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    rescale: Annotated[
        bool | None,
        typer.Option(
            "--rescale/--no-rescale",
            help="Divide α and β by p; dare: the weights by the density.",
            show_default="no; dare: yes",
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    density: Annotated[
        float | None,
        typer.Option(
            help="Share of each delta that is kept.",
            show_default="dare 0.5, ties and magnitude 0.2",
            rich_help_panel=_MERGE,
        ),
    ] = None,
    weight: Annotated[
        list[float] | None,
        typer.Option(
            help="Factor of each tuned model's delta, in their order, or one for all.",
            show_default="1",
            rich_help_panel=_MERGE,
        ),
    ] = None,
    lambda_: Annotated[
        float | None,
        typer.Option(
            "--lambda",
            help="Factor of the merged delta.",
            show_default="1",
            rich_help_panel=_MERGE,
        ),
    ] = None,
    least_step: Annotated[
        int | None,
        typer.Option(
            help="Leave out changes of fewer units in the last place.",
            show_default="1",
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            help="Only tensors whose name matches this regular expression; may be repeated.",
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="No tensors whose name matches this regular expression; may be repeated.",
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    values: Annotated[
        Values,
        typer.Option(
            help="ulp: exact steps, reversible. additive: the deltas before alpha and beta (after "
            "them, where a recipe's differ by tensor), for other scales and descendants; not "
            "reversible.",
            rich_help_panel=_VALUES,
        ),
    ] = Values.ULP,
    value_type: Annotated[
        ValueType | None,
        typer.Option(
            help="How additive values are stored.", show_default="bf16", rich_help_panel=_VALUES
        ),
    ] = None,
    dry_run: DryRun = False,
    codec: StepCodec = Codec.AUTO,
    threads: Threads = None,
    max_memory: MaxMemory = None,
    device: BuildDevice = Device.CPU,
    json: Json = False,
) -> None:
    """Compile tuned models into one patch file: SafePatching, or a merge of their deltas.

    Example: patchc build models/chat --se work/se --osm work/osm -o fix.patchc

    Example: patchc build models/chat --recipe ties --tuned models/a --tuned models/b -o ab.patchc
    """
    import patchc
    from patchc.cli.chosen_recipe import choose_recipe, warn_of_unfitted
    from patchc.cli.output import print_facts, print_json
    from patchc.cli.patches import patch_facts, plan_facts
    from patchc.cli.ranks import shared_work

    selection, given = choose_recipe(
        recipe,
        retain=retain,
        top_se=top_se,
        top_osm=top_osm,
        alpha=alpha,
        beta=beta,
        seed=seed,
        scope=scope,
        rank_among=rank_among,
        score=score,
        sets=sets,
        rescale=rescale,
        least_step=least_step,
        density=density,
        weight=weight or None,
        lambda_=lambda_,
        include=include or None,
        exclude=exclude or None,
    )
    with shared_work() as (ranks, progress):
        report = patchc.build(
            base,
            se=se,
            osm=osm,
            tuned=tuned or (),
            out=out,
            recipe=selection,
            se_scores=se_scores,
            osm_scores=osm_scores,
            values=values.value,
            value_type=value_type.value if value_type else None,
            dry_run=dry_run,
            codec=codec.value,
            threads=threads,
            max_memory=max_memory,
            device=device.value,
            progress=progress,
            ranks=ranks,
        )
    warn_of_unfitted(selection, given)
    if json:
        print_json(report)
    elif report.patch is None:
        print_facts("build: the plan; nothing was written", plan_facts(report.plan, selection))
    else:
        print_facts(f"build: wrote {out}", patch_facts(report.patch))
