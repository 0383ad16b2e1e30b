"""Arguments and options that several commands share."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Device(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Dtype(StrEnum):
    """What to compute in."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


ASKING = "Asking and judging"
"""The panel of the options below, and of the judge's."""

MaxNewTokens = Annotated[int, typer.Option(help="Longest reply.", rich_help_panel=ASKING)]

AskedTogether = Annotated[
    int, typer.Option(help="Requests asked together.", rich_help_panel=ASKING)
]

SystemMessage = Annotated[
    str | None,
    typer.Option(help="System message for requests without one.", rich_help_panel=ASKING),
]

AskDtype = Annotated[
    Dtype, typer.Option(help="auto is the one of the stored weights.", rich_help_panel=ASKING)
]

AskDevice = Annotated[Device, typer.Option(help="Where to compute.", rich_help_panel=ASKING)]


_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_size(text: str) -> int:
    """Bytes from text such as ``300MB`` or ``1.5 GiB``."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _UNITS:
        raise typer.BadParameter(f"{text!r} is not a size such as 300MB or 1GiB")
    return int(float(match[1]) * _UNITS[match[2]])


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

BuildDevice = Annotated[
    Device,
    typer.Option(
        "--device",
        help="Where safepatching selects and merges; cuda needs torch. Digests, coding, other "
        "methods and the deltas of additive values are the CPU's. The file is the same.",
    ),
]

CopyDevice = Annotated[
    Device,
    typer.Option(
        "--device",
        help="Where additive values are added; cuda needs torch. Exact steps are added by the CPU, "
        "whatever this says. The result is the same.",
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

MaxMemory = Annotated[
    int | None,
    typer.Option(
        "--max-memory",
        parser=parse_size,
        metavar="SIZE",
        help="Memory that the process may take: fewer threads run where more would not fit. A "
        "number of bytes, or one with kB, MB, GB, KiB, MiB or GiB.",
        show_default="300 MB, for a build 500 MB, unless --threads is given",
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
