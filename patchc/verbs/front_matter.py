"""The front matter of a model card: what the Hugging Face hub reads of a README, as YAML."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from patchc.errors import UsageError
from patchc.verbs.inspect import InspectReport

RELATION = "finetune"
"""What a patched model is to its base, of the hub's adapter, finetune, merge and quantized: a full
set of weights, trained further. No loader takes a patch as an adapter; a merge names its parents,
which a patch does not know."""

_TAGS = ("patchc", "weight-patch")
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"(?:{_PART}/)?{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
_LIBRARY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class HubBase:
    """Where the hub has the base of a patch.

    Attributes:
        hub_id: its id, as ``org/name``.
        revision: a commit, a tag or a branch; empty if none was named.
    """

    hub_id: str
    revision: str


class _Quoted(str):
    """A text that is quoted in YAML, whatever a reader would take it for: 1e5, or yes."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Quoted, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def parse_hub_base(text: str) -> HubBase:
    """Read ``org/name`` or ``org/name@revision``.

    Raises:
        UsageError: the id is none that the hub takes, or the revision is malformed.
    """
    hub_id, at, revision = text.partition("@")
    if not _HUB_ID.fullmatch(hub_id) or re.search(r"--|\.\.|\.git$", hub_id):
        raise UsageError(
            f"base model {text[:120]!r} is no id of a model on the hub; give one such as org/name "
            "or org/name@revision"
        )
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise UsageError(
            f"base model {text[:120]!r}: what follows @ is no revision; give a commit, a tag or a "
            "branch"
        )
    return HubBase(hub_id, revision)


def check_library(name: str) -> None:
    """Refuse what cannot be a library's name.

    Raises:
        UsageError: it is none.
    """
    if not _LIBRARY.fullmatch(name):
        raise UsageError(
            f"library {name[:60]!r} is no name of a library on the hub; give one word, such as "
            "transformers"
        )


def front_matter(report: InspectReport, base: HubBase | None, library: str | None) -> str:
    """Write the front matter with its fences. It holds no text of the patch, only digests."""
    known: dict[str, Any] = {}
    if base:
        known |= {"base_model": _Quoted(base.hub_id), "base_model_relation": RELATION}
    if library:
        known["library_name"] = _Quoted(library)
    known["tags"] = list(_TAGS)
    digests = {
        "root": report.root,
        "base_digest": report.base_digest,
        "result_digest": report.result_digest,
        "base_revision": base.revision if base else None,
    }
    known["patchc"] = {name: _Quoted(value) for name, value in digests.items() if value}
    return f"---\n{yaml.dump(known, Dumper=_Dumper, sort_keys=False)}---"
