"""``patchc diff``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchc.cli.options import Codec, Json, MaxMemory, OutPatch, StepCodec, Threads


def diff(
    base: Annotated[
        Path, typer.Argument(help="Checkpoint folder or safetensors file.", show_default=False)
    ],
    tuned: Annotated[
        Path, typer.Argument(help="The same model after a change.", show_default=False)
    ],
    out: OutPatch,
    weights_only: Annotated[
        bool,
        typer.Option(
            "--weights-only",
            help="Compare tensors alone, which must be the same ones; leave shards, headers and "
            "other files as the model to patch has them.",
        ),
    ] = False,
    codec: StepCodec = Codec.AUTO,
    threads: Threads = None,
    max_memory: MaxMemory = None,
    json: Json = False,
) -> None:
    """Write a lossless patch that takes BASE to TUNED, whatever made the change.

    Tensors may be added, removed, renamed, resized or of another dtype; shards and the files
    beside them may differ.

    Example: patchc diff models/chat models/chat-v2 -o update.patchc
    """
    import patchc
    from patchc.cli.output import print_facts, print_json
    from patchc.cli.patches import patch_facts
    from patchc.cli.ranks import shared_work

    with shared_work() as (ranks, progress):
        report = patchc.diff(
            base,
            tuned,
            out=out,
            weights_only=weights_only,
            codec=codec.value,
            threads=threads,
            max_memory=max_memory,
            progress=progress,
            ranks=ranks,
        )
    if json:
        print_json(report)
    else:
        print_facts(f"diff: wrote {out}", patch_facts(report))
