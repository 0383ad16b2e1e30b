"""The options that say what patches a command takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from patchc.cli.options import option
from patchc.cli.voice import voice
from patchc.paths import listed

if TYPE_CHECKING:
    from patchc.signing.trust import PolicyAnswer, Trust

AllowCode = Annotated[
    bool,
    option(
        "Take a patch that brings files which a loader or an interpreter would run.", "--allow-code"
    ),
]


def with_trust(given: Mapping[str, Any]) -> dict[str, Any]:
    """Put what a command was given of these options together, as its verb takes them.

    A table ``[policy]`` of the file given with --config counts, too.
    """
    from patchc.signing.policy import read_config_policy
    from patchc.signing.trust import Trust

    rest, config = dict(given), voice().config
    policy = read_config_policy(config) if config else None
    rest["trust"] = Trust(
        keys=rest.pop("trusted"),
        require=rest.pop("require"),
        signatures=rest.pop("signatures") or (),
        policies=(policy,) if policy else (),
        allow_code=rest.pop("allow_code", False),
    )
    return rest


def trust_words(trust: Trust) -> list[object]:
    """Write the options that ask for the same signatures, for the command that comes next."""
    keys, signatures = listed(trust.keys or ()), listed(trust.signatures)
    words: list[object] = [word for key in keys for word in ("--trusted", key)]
    words += ["--require", trust.require] if trust.require else []
    return words + [word for file in signatures for word in ("--signature", file)]


def policy_facts(policies: tuple[PolicyAnswer, ...]) -> dict[str, object]:
    """Say whose signatures a patch was taken for, and which policies asked for them."""
    if not policies:
        return {}
    keys = dict.fromkeys(key for one in policies for key in one.signed.valid)
    sources = dict.fromkeys(one.source for one in policies)
    ask = "asks" if len(sources) == 1 else "ask"
    return {"signed by": f"{', '.join(keys)}, as {' and '.join(sources)} {ask}"}
