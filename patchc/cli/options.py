"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Device(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


PatchFile = Annotated[Path, typer.Argument(help="Patch file.", show_default=False)]

ModelPath = Annotated[
    Path, typer.Argument(help="Checkpoint folder or safetensors file.", show_default=False)
]

OutModel = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        help="New or empty folder to write (a new file where MODEL is a file).",
        show_default=False,
    ),
]


class Codec(StrEnum):
    """How exact steps are coded."""

    AUTO = "auto"
    RICE = "rice"


InPlace = Annotated[
    bool,
    typer.Option(
        "--in-place",
        help="Write into MODEL's own files, after a look at all of it; no copy is made. Run it "
        "again after an interruption: it goes on.",
    ),
]

StepCodec = Annotated[
    Codec,
    typer.Option(
        "--codec",
        help="auto codes changes given the base's words where that is shorter; rice so that they "
        "can be read, and patches folded, without the base.",
    ),
]

OutPatch = Annotated[
    Path, typer.Option("-o", "--out", help="Patch file to write.", show_default=False)
]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and show the plan; write nothing.")]

Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Worker threads.", show_default="one a core"),
]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
