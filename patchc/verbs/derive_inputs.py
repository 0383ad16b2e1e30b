"""The files of a derivation: which ones each objective takes, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from patchc.derivation.conversations import Conversation, read_conversations
from patchc.derivation.derive_options import DeriveOptions, Objective
from patchc.errors import UsageError
from patchc.evaluation.requests import Request, RequestSets, read_requests

Files = Mapping[str, Path]
"""Those of ``data``, ``harmless`` and ``anchor`` that are given."""

_TAKES: dict[Objective, tuple[str, ...]] = {
    "pair": ("data",),
    "refusals": ("data",),
    "answers": ("harmless",),
    "npo": ("data",),
    "margin": ("data", "harmless"),
}
_MEANING = {"data": "the harmful requests", "harmless": "the harmless requests"}


@dataclass(frozen=True)
class Inputs:
    """What the files hold.

    Attributes:
        conversations: those to learn or unlearn; empty where requests are enough.
        requests: harmful and harmless ones where requests are enough; those to anchor on as
            ``utility``.
        record: of each file its name, BLAKE3 and how many examples it holds.
    """

    conversations: tuple[Conversation, ...]
    requests: RequestSets
    record: dict[str, Any]


def check_files(files: Files, options: DeriveOptions) -> None:
    """Check that the objective's files are given and no others.

    Raises:
        UsageError: they are not.
    """
    takes = _TAKES[options.objective]
    for name, meaning in _MEANING.items():
        if name in takes and name not in files:
            raise UsageError(f"objective {options.objective} needs {meaning}; name them as {name}")
        if name in files and name not in takes:
            raise UsageError(
                f"{name} is given, and objective {options.objective} takes {takes[0]} alone; leave "
                "it out, or choose another objective"
            )
    if "anchor" in files and not options.weight_of_anchor:
        raise UsageError("anchor is given, and its weight is 0; set anchor_weight above 0")
    if "anchor" not in files and options.weight_of_anchor and options.objective != "margin":
        raise UsageError(
            f"anchor_weight is {options.weight_of_anchor}, and there is no text to anchor on; name "
            "harmless requests as anchor"
        )


def read_inputs(files: Files, options: DeriveOptions) -> Inputs:
    """Read the files: conversations where the objective needs responses, requests elsewhere.

    Raises:
        DeriveError: a conversation is malformed or has no response.
        EvaluateError: requests cannot be read; see
            :func:`patchc.evaluation.requests.read_requests`.
    """
    takes, record = _TAKES[options.objective], {}
    conversations: tuple[Conversation, ...] = ()
    sets: dict[str, tuple[Request, ...]] = {"data": (), "harmless": (), "anchor": ()}
    if options.objective in ("refusals", "margin"):
        for name in takes:
            sets[name] = read_requests(files[name], "harmful" if name == "data" else "harmless")
    else:
        file = read_conversations(files[takes[0]])
        conversations = file.conversations
        record[takes[0]] = _source(file.name, file.digest, len(conversations))
    if "anchor" in files:
        sets["anchor"] = read_requests(files["anchor"], "harmless")
    for name, requests in sets.items():
        if requests:
            digest = blake3(files[name].read_bytes()).hexdigest()
            record[name] = _source(files[name].name, digest, len(requests))
    return Inputs(conversations, RequestSets(*sets.values()), record)


def _source(name: str, digest: str, examples: int) -> dict[str, Any]:
    return {"name": name, "blake3": digest, "examples": examples}
