"""``patchc diff``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from patchc.cli import options as shared
from patchc.cli.options import argument, option, without

_MOST_ROWS = 20
"""Tensors, and files, of an update that are shown after it was written."""


def diff(
    base: shared.ModelPath,
    tuned: Annotated[Path, argument("The same model after a change.", parser=shared.model)],
    out: shared.OutPatch,
    weights_only: Annotated[
        bool,
        option(
            "Compare tensors alone, which must be the same ones; leave shards, headers and other "
            "files as the model to patch has them.",
            "--weights-only",
        ),
    ] = False,
    rename: shared.Rename = None,
    codec: shared.Codec = "auto",
    threads: shared.Threads = None,
    max_memory: shared.MaxMemory = None,
    json: shared.Json = False,
) -> None:
    """Write a lossless patch that takes BASE to TUNED, whatever made the change.

    Tensors may be added, removed, renamed, resized or of another dtype; shards and the files
    beside them may differ.

    Example: patchc diff models/chat models/chat-v2 -o update.patchc

    Example: patchc diff models/chat models/compiled -o update.patchc --rename '^=_orig_mod.'
    """
    given = without(locals(), "json", "rename")
    import patchc
    from patchc.checkpoint.left_aside import listed
    from patchc.cli.file_notes import print_code
    from patchc.cli.output import print_facts, print_json, print_next
    from patchc.cli.patches import patch_facts
    from patchc.cli.ranks import shared_work
    from patchc.cli.update_tables import beside_facts, print_update, update_facts

    with shared_work() as progress:
        report = patchc.diff(**given, rename=rename or (), progress=progress)
    if json:
        print_json(report)
    else:
        facts = patch_facts(report) | update_facts(report.update, report.entries)
        facts |= beside_facts(report.beside, report.update, "; else give --weights-only")
        if report.left_aside:
            names = dict.fromkeys(one.name for one in report.left_aside)
            facts["not carried"] = listed(list(names))
        print_facts(f"diff: wrote {out}", facts)
        if report.update:
            print_update(report.update, most=_MOST_ROWS)
        print_code(report.code)
        print_next("verify", out, base)
