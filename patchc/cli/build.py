"""``patchc build``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchc.cli.options import DryRun, Json, OutPatch, Threads

if TYPE_CHECKING:
    from patchc.recipe import Recipe
    from patchc.verbs.build import BuildPlan

_SELECTION = "Selection"
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
    se: Annotated[
        Path, typer.Option("--se", help="Model tuned by gradient ascent.", show_default=False)
    ],
    osm: Annotated[
        Path, typer.Option("--osm", help="Model tuned by gradient descent.", show_default=False)
    ],
    out: OutPatch,
    se_scores: Annotated[
        Path | None, typer.Option(help="SE scores.", show_default="beside the SE model")
    ] = None,
    osm_scores: Annotated[
        Path | None, typer.Option(help="OSM scores.", show_default="beside the OSM model")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="TOML file with the selection's options; options here win over it."),
    ] = None,
    retain: Annotated[
        float | None,
        typer.Option(
            help="Probability p that an entry is retained.",
            show_default="0.3",
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    top_se: Annotated[
        float | None,
        typer.Option(
            help="Share of entries taken by SE score.",
            show_default="0.1",
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    top_osm: Annotated[
        float | None,
        typer.Option(
            help="Share of entries taken by OSM score.",
            show_default="0.1",
            rich_help_panel=_SELECTION,
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="Scale of the SE delta.", show_default="8", rich_help_panel=_SELECTION),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(help="Scale of the OSM delta.", show_default="16", rich_help_panel=_SELECTION),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the retention draws.", show_default="0", rich_help_panel=_SELECTION
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
            help="ulp: exact steps, reversible. additive: the deltas before alpha and beta, for "
            "other scales and descendants; not reversible.",
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
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Compile two tuned models and their scores into one patch file (SafePatching).

    Example: patchc build models/chat --se work/se --osm work/osm -o fix.patchc
    """
    import patchc
    from patchc.cli.output import print_facts, print_json, progress_bar
    from patchc.cli.patches import patch_facts

    selection = _read_recipe(recipe).with_changes(
        retain=retain,
        top_se=top_se,
        top_osm=top_osm,
        alpha=alpha,
        beta=beta,
        seed=seed,
        include=include or None,
        exclude=exclude or None,
    )
    with progress_bar() as progress:
        report = patchc.build(
            base,
            se=se,
            osm=osm,
            out=out,
            recipe=selection,
            se_scores=se_scores,
            osm_scores=osm_scores,
            values=values.value,
            value_type=value_type.value if value_type else None,
            dry_run=dry_run,
            threads=threads,
            progress=progress,
        )
    if json:
        print_json(report)
    elif report.patch is None:
        print_facts("build: the plan; nothing was written", _plan_facts(report.plan, selection))
    else:
        print_facts(f"build: wrote {out}", patch_facts(report.patch))


def _read_recipe(path: Path | None) -> Recipe:
    from patchc.recipe import Recipe, read_recipe

    return read_recipe(path) if path else Recipe()


def _plan_facts(plan: BuildPlan, recipe: Recipe) -> dict[str, object]:
    from patchc.cli.output import size

    return {
        "recipe": ", ".join(f"{key} {value}" for key, value in recipe.to_json().items()),
        "candidates": f"{len(plan.candidates)} tensors, {plan.candidate_words:,} of "
        f"{plan.model_words:,} entries",
        "expected density": f"at most {plan.density:.4%} of the model",
        "expected size": f"about {size(plan.patch_bytes)}",
        "expected memory": f"about {size(plan.memory_bytes)}",
        "bytes to read": size(plan.read_bytes),
    }
