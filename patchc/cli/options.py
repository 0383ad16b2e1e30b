"""Arguments and options that several commands share."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from patchc.hub_cache import parse_id
from patchc.paths import EMPTY


def argument(text: str, metavar: str | None = None, **more: Any) -> Any:
    """Describe an argument of a command; ``more`` is what else :class:`typer.Argument` takes."""
    return typer.Argument(help=text, metavar=metavar, **more)


def option(
    text: str, *names: str, panel: str | None = None, shown: str | None = None, **more: Any
) -> Any:
    """Describe an option of a command.

    Args:
        text: what its help says.
        names: "--name", where it is not the parameter's name.
        panel: the heading above it in the help.
        shown: the default as the help shows it, where the parameter's does not tell it.
        more: what else :class:`typer.Option` takes.
    """
    default = True if shown is None else shown
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=default, **more)


def only(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Pick from a command's ``locals()`` what it passes on under the same names."""
    return {name: given[name] for name in names}


def without(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Leave out of a command's ``locals()`` what it does not pass on under the same name."""
    return {name: value for name, value in given.items() if name not in names}


def named_path(text: str) -> Path:
    """Read a path: the parser of every argument and option that takes one and has no other.

    Typer alone takes an empty text, such as a variable of the shell that is not set, for ``.``.
    """
    if not text:
        raise typer.BadParameter(EMPTY)
    return Path(text)


def model(text: str) -> Path:
    """Read a model: the parser of every argument and option that takes one.

    The command gets a path, in which ``./`` and a last ``/`` are lost. What they make a local path
    stays one, and no name on a hub.
    """
    path = named_path(text)
    if parse_id(text) is None and parse_id(str(path)) and not os.path.lexists(path):
        return Path.cwd() / path
    return path


def parse_number(text: str) -> float:
    """Read a number."""
    try:
        return float(text)
    except ValueError:
        share = " (30 % is 0.3)" if "%" in text else ""
        raise typer.BadParameter(f"{text!r:.40} is not a number such as 0.3{share}") from None


def parse_size(text: str) -> int:
    """Read bytes from text such as ``300MB`` or ``1.5 GiB``."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _UNITS:
        raise typer.BadParameter(f"{text!r:.40} is not a size such as 300MB or 1GiB")
    size = float(match[1]) * _UNITS[match[2]]
    if size > _LARGEST:
        raise typer.BadParameter(f"{text:.40} is more memory than any machine has")
    return int(size)


_LARGEST = 2.0**63
_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16"]

BaseFolder = Annotated[Path, argument("The aligned model: folder or hub id.", parser=model)]
SeModel = Annotated[
    Path | None,
    option(
        "Safety enhancement (SE): model tuned by gradient ascent.", metavar="MODEL", parser=model
    ),
]
OsmModel = Annotated[
    Path | None,
    option(
        "Over-safety mitigation (OSM): model tuned by gradient descent.",
        metavar="MODEL",
        parser=model,
    ),
]
PatchFile = Annotated[Path, argument("Patch file.")]
ModelPath = Annotated[
    Path,
    argument(
        "Checkpoint folder, safetensors file, or hub id: org/name\\[@revision].", parser=model
    ),
]

OutModel = Annotated[
    Path | None,
    option("New or empty folder to write (a new file where MODEL is a file).", "-o", "--out"),
]
OutPatch = Annotated[Path, option("Patch file to write.", "-o", "--out")]

InPlace = Annotated[
    bool,
    option(
        "Write into MODEL's own files, after a look at all of it; no copy is made. A journal "
        "beside them has what is being written. Run it again after an interruption: it goes on.",
        "--in-place",
    ),
]
Resume = Annotated[
    bool, option("Go on with an interrupted run; --in-place does so anyway.", "--resume")
]
RepairFrom = Annotated[
    Path | None,
    option(
        "With --in-place: an intact copy of the base or of the result, such as a hub's snapshot. "
        "Chunks of MODEL that a crash tore, and no journal restores, are restored from it.",
        metavar="COPY",
        parser=model,
    ),
]
Rename = Annotated[
    list[str] | None,
    option(
        "What the base calls OLD, the tuned model calls NEW; may be repeated. Rules apply in "
        "order, each to the first match in a name. OLD is a regular expression (RE2), up to the "
        r"first = without a \ before it; \1 in NEW is its first group. A tensor that is not there "
        "under the new name keeps its own.",
        metavar="OLD=NEW",
    ),
]
KeepSideFiles = Annotated[
    bool,
    option(
        "Leave alone any side file of MODEL that is not as the patch expects, and name it. Model "
        "cards are left alone anyway.",
        "--keep-side-files",
    ),
]
StrictSideFiles = Annotated[
    bool,
    option(
        "Refuse MODEL for any side file that is not as the patch expects, model cards too.",
        "--strict-side-files",
    ),
]
Codec = Annotated[
    Literal["auto", "rice"],
    option(
        "auto codes changes given the base's words where that is shorter; rice so that they can be "
        "read, and patches folded, without the base."
    ),
]
BuildDevice = Annotated[
    Device,
    option(
        "Where safepatching selects and merges; cuda needs torch. Digests, coding, other methods "
        "and the deltas of additive values are the CPU's. The file is the same."
    ),
]
CopyDevice = Annotated[
    Device,
    option(
        "Where additive values are added; cuda needs torch. Exact steps are added by the CPU, "
        "whatever this says. The result is the same."
    ),
]
DryRun = Annotated[bool, option("Check and show the plan; write nothing.", "--dry-run")]
Threads = Annotated[
    int | None, option("Worker threads.", shown="one per core", min=1, max=1024, metavar="N")
]
MaxMemory = Annotated[
    int | None,
    option(
        "Memory that the process may take: fewer threads run where more would not fit. A number of "
        "bytes, or one with kB, MB, GB, KiB, MiB or GiB.",
        shown="300 MB, for a build 500 MB, unless --threads is given",
        parser=parse_size,
        metavar="SIZE",
    ),
]
Json = Annotated[bool, option("Print the result as JSON.", "--json")]

FollowLinks = Annotated[
    bool,
    option(
        "Take what links to files lead to, as in a hub's cache; otherwise a link is refused.",
        "--follow-links",
    ),
]

# How models are asked, and their replies judged.

asking_option = partial(option, panel="Asking and judging")

Judge = Annotated[str, asking_option("Who gives verdicts; see `patchc evaluate --help`.")]
MaxNewTokens = Annotated[int, asking_option("Longest reply.")]
AskedTogether = Annotated[int, asking_option("Requests asked together.")]
SystemMessage = Annotated[str | None, asking_option("System message for requests without one.")]
AskDtype = Annotated[Dtype, asking_option("auto is the one of the stored weights.")]
AskDevice = Annotated[Device, asking_option("Where to compute.")]
