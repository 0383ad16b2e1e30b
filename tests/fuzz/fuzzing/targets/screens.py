"""What commands show of a patch: no character that a screen acts on, and JSON that stays JSON."""

from __future__ import annotations

import json

from command_line import run

from fuzzing.mutation import json_text, patch_file
from fuzzing.mutation.draws import Draws
from fuzzing.target import Target, expect, written
from patchc.errors import PatchcError

_PARTLY = 0.5
"""The share of changes that are of the metadata alone, which is what is shown most."""


def read(data: bytes) -> None:
    """Let `inspect` and `verify` show a patch."""
    path = written("shown.patchc", data)
    code, text, told = run("inspect", path)
    for shown in (text, told):
        expect(shown.replace("\n", "").isprintable(), "a screen would act on what is shown")
    again, plain, _ = run("inspect", path, "--json")
    expect(code == again, "--json ends otherwise")
    if code == 0:
        expect(json.loads(plain)["size"] == len(data), "JSON does not stay JSON")
        code, text, told = run("verify", path)
        expect((text + told).replace("\n", "").isprintable(), "a screen would act on it")
    if code:
        expect("patchc: error: " in told and 2 < code < 100, f"no error: {code} {told!r:.200}")
        raise PatchcError(told)


def mutate(data: bytes, draws: Draws) -> bytes:
    """Change a patch, often its metadata alone."""
    if draws.chance(_PARTLY):
        return patch_file.with_text(data, lambda text: json_text.mutate(text, draws))
    return patch_file.mutate(data, draws)


TARGET = Target(
    "screens",
    read,
    mutate,
    ("patchc.cli.inspect", "patchc.cli.verify", "patchc.cli.output", "patchc.escaping"),
    executions=200,
    most_bytes=1 << 13,
)
