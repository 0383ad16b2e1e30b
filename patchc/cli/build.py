"""``patchc build``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from patchc.cli import options as shared
from patchc.cli.options import argument, option, without
from patchc.cli.recipe_options import PARAMETERS, choose_recipe, recipe_option, takes

_of_values = partial(option, panel="Values")


@takes({name: recipe_option(name) for name in PARAMETERS if name != "overrides"})
def build(
    base: Annotated[
        Path, argument("The aligned model: folder, file or hub id.", parser=shared.model)
    ],
    out: shared.OutPatch,
    se: shared.SeModel = None,
    osm: shared.OsmModel = None,
    se_scores: Annotated[Path | None, option("SE scores.", shown="beside the SE model")] = None,
    osm_scores: Annotated[Path | None, option("OSM scores.", shown="beside the OSM model")] = None,
    tuned: Annotated[
        list[Path] | None,
        option(
            "Tuned model to merge; may be repeated. Not for safepatching.",
            metavar="MODEL",
            parser=shared.model,
        ),
    ] = None,
    rename: shared.Rename = None,
    recipe: Annotated[
        str,
        option(
            "Method: safepatching, task-arithmetic, dare, ties or magnitude; or a TOML or YAML "
            "file of options. Options here win over it."
        ),
    ] = "safepatching",
    values: Annotated[
        Literal["ulp", "additive"],
        _of_values(
            "ulp: exact steps, reversible. additive: the deltas before alpha and beta (after them, "
            "where a recipe's differ by tensor), for other scales and descendants; not reversible."
        ),
    ] = "ulp",
    value_type: Annotated[
        Literal["bf16", "int8"] | None, _of_values("How additive values are stored.", shown="bf16")
    ] = None,
    dry_run: shared.DryRun = False,
    codec: shared.Codec = "auto",
    threads: shared.Threads = None,
    max_memory: shared.MaxMemory = None,
    device: shared.BuildDevice = "cpu",
    json: shared.Json = False,
    **chosen: Any,
) -> None:
    """Compile tuned models into one patch file: SafePatching, or a merge of their deltas.

    Example: patchc build models/chat --se work/se --osm work/osm -o fix.patchc

    Example: patchc build models/chat --recipe ties --tuned models/a --tuned models/b -o ab.patchc
    """
    given = without(locals(), "recipe", "tuned", "rename", "json", "chosen")
    import patchc
    from patchc.cli.output import (
        print_facts,
        print_json,
        print_next,
        print_next_without_dry_run,
        warn,
    )
    from patchc.cli.patches import patch_facts, plan_facts
    from patchc.cli.ranks import shared_work
    from patchc.cli.recipe_options import warn_of_unfitted

    selection, keys = choose_recipe(recipe, chosen)
    with shared_work() as progress:
        report = patchc.build(
            **given, tuned=tuned or (), rename=rename or (), recipe=selection, progress=progress
        )
    warn_of_unfitted(selection, keys)
    for note in report.notes:
        warn(note)
    if json:
        print_json(report)
    elif report.dry_run:
        print_facts("build: the plan; nothing was written", plan_facts(report.plan, selection))
        print_next_without_dry_run()
    else:
        print_facts(f"build: wrote {out}", patch_facts(report))
        print_next("verify", out, base)
