"""Policy files, alone and in a file of options."""

from __future__ import annotations

from functools import cache

from signed_patches import FIRST

from fuzzing.mutation.plain_text import mutate_words_of_kind
from fuzzing.target import Target, expect, scratch, written
from patchc.signing.policy import read_config_policy, read_policy


@cache
def _keys() -> None:
    (scratch() / "keys").mkdir(mode=0o700)
    FIRST.write_public(scratch() / "keys" / "first.pub").chmod(0o600)


def read(data: bytes) -> None:
    """Read a policy; what is taken asks for a signature of some key."""
    _keys()
    path = written("policy.toml", data[1:])
    path.chmod(0o600)
    policy = read_config_policy(path) if data[:1] == b"\1" else read_policy(path)
    if policy:
        expect(policy.require >= 1 and bool(policy.trusted), "a policy asks for nothing")
        expect(isinstance(policy.allow_code, bool), "a policy is neither strict nor not")


TARGET = Target(
    "policies",
    read,
    mutate_words_of_kind,
    ("patchc.signing.policy",),
    executions=1500,
    most_bytes=1 << 12,
)
