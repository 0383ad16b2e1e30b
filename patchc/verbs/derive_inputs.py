"""The files of a derivation: which of them each objective takes, and their content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchc.derivation.conversations import Conversation, read_conversations
from patchc.derivation.derive_options import DeriveOptions, Objective
from patchc.errors import UsageError
from patchc.evaluation.requests import Request, RequestSets, SetName, read_requests
from patchc.stages import file_digest

Files = Mapping[SetName, Path]

TAKES: dict[Objective, tuple[SetName, ...]] = {
    "pair": ("harmful",),
    "refusals": ("harmful",),
    "answers": ("harmless",),
    "npo": ("harmful",),
    "margin": ("harmful", "harmless"),
}
"""By objective, the sets of requests that it takes, besides those to anchor on."""

ARGUMENTS: dict[SetName, str] = {"harmful": "data", "harmless": "harmless", "utility": "anchor"}
"""By set, the argument of :func:`patchc.derive` that takes its file; "utility" is the anchor."""


@dataclass(frozen=True)
class Inputs:
    """The content of the files.

    Attributes:
        conversations: conversations to learn or unlearn; empty if the objective takes requests.
        requests: harmful and harmless requests, if the objective takes them; as ``utility`` the
            requests to anchor on.
        record: name, BLAKE3 and number of examples of each file.
    """

    conversations: tuple[Conversation, ...]
    requests: RequestSets
    record: dict[str, Any]


def check_files(files: Files, options: DeriveOptions) -> None:
    """Check that the objective's files are given and no others.

    Raises:
        UsageError: one is missing, or one is not the objective's.
    """
    takes = TAKES[options.objective]
    sets: tuple[SetName, ...] = ("harmful", "harmless")
    for name in sets:
        argument = ARGUMENTS[name]
        if name in takes and name not in files:
            raise UsageError(
                f"objective {options.objective} needs the {name} requests; name them as {argument}"
            )
        if name in files and name not in takes:
            raise UsageError(
                f"{argument} is given, and objective {options.objective} takes "
                f"{ARGUMENTS[takes[0]]} alone; leave it out, or choose another objective"
            )
    if "utility" in files and not options.weight_of_anchor:
        raise UsageError("anchor is given, and its weight is 0; set anchor_weight above 0")
    if "utility" not in files and options.weight_of_anchor and options.objective != "margin":
        raise UsageError(
            f"anchor_weight is {options.weight_of_anchor}, and there is no text to anchor on; name "
            "harmless requests as anchor"
        )


def read_inputs(files: Files, options: DeriveOptions) -> Inputs:
    """Read conversations if the objective needs responses, requests otherwise.

    Raises:
        DeriveError: a conversation is malformed or has no response.
        EvaluateError: requests cannot be read; see
            :func:`patchc.evaluation.requests.read_requests`.
    """
    takes = TAKES[options.objective]
    conversations: tuple[Conversation, ...] = ()
    sets: dict[SetName, tuple[Request, ...]] = {"harmful": (), "harmless": (), "utility": ()}
    if options.objective in ("refusals", "margin"):
        sets |= {name: read_requests(files[name], name) for name in takes}
    else:
        conversations = read_conversations(files[takes[0]])
    if "utility" in files:
        sets["utility"] = read_requests(files["utility"], "harmless")
    record = {
        ARGUMENTS[name]: {
            "name": path.name,
            "blake3": file_digest(path),
            "examples": len(sets[name] or conversations),
        }
        for name, path in files.items()
    }
    return Inputs(conversations, RequestSets(*sets.values()), record)
