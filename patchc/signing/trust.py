"""What patches a call takes, and the check that a patch is one of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from patchc.errors import SignatureError, UsageError
from patchc.formats import Patch
from patchc.paths import PathLike, listed
from patchc.signing.check import SignatureReport, check_signatures, demand
from patchc.signing.policy import THIS_CALL, SigningPolicy, naming, read_policy, standing_policies

NamedPolicy = PathLike | SigningPolicy
"""A policy file, or what was read from one."""


def _each(given: NamedPolicy | Iterable[NamedPolicy]) -> list[NamedPolicy]:
    return [given] if isinstance(given, str | os.PathLike | SigningPolicy) else [*given]


@dataclass(frozen=True)
class Trust:
    """What patches a call takes, beside what the policies in force ask for.

    Those of the environment (``PATCHC_POLICY``), of the user and of the machine always count. Each
    policy has to hold by itself, so that nothing here weakens one.

    Attributes:
        keys: trusted public keys: files, and folders of them. With None, the call itself asks for
            no signature.
        require: how many of ``keys`` must have signed a patch; None means 1.
        signatures: files of detached signatures.
        policies: policies that have to hold, too: files, or what was read from some.
        allow_code: take a patch with files that a loader or an interpreter would run.

    Raises:
        UsageError: a value is of another kind, or ``keys`` is empty.
    """

    keys: PathLike | Sequence[PathLike] | None = None
    require: int | None = None
    signatures: PathLike | Sequence[PathLike] = ()
    policies: NamedPolicy | Sequence[NamedPolicy] = ()
    allow_code: bool = False

    def __post_init__(self) -> None:
        # Kept as tuples: what can be gone through once would be empty for a second patch.
        kept: dict[str, Sequence[object]] = {"policies": _each(self.policies)}
        kept["signatures"] = listed(self.signatures)
        if self.keys is not None:
            kept["keys"] = listed(self.keys)
            if not kept["keys"]:
                raise UsageError("keys is empty, so that nobody is trusted; name the trusted keys")
        for name, values in kept.items():
            object.__setattr__(self, name, tuple(values))
        number = self.require
        if number is not None and (not isinstance(number, int) or number < 1 or number is True):
            raise UsageError(f"require is {number!r:.80}; give a whole number, at least 1")
        if not isinstance(self.allow_code, bool):
            raise UsageError(f"allow_code is {self.allow_code!r:.80}; give True or False")

    def asked(self) -> tuple[SigningPolicy, ...]:
        """What the call itself asks for, as policies.

        Raises:
            SignatureError: a policy file cannot be used.
            UsageError: ``require`` without ``keys``.
        """
        policies = tuple(
            one if isinstance(one, SigningPolicy) else read_policy(Path(one))
            for one in _each(self.policies)
        )
        if self.keys is not None:
            keys, require = tuple(listed(self.keys)), self.require or 1
            return (SigningPolicy(THIS_CALL, keys, require, self.allow_code), *policies)
        if self.require is not None:
            raise UsageError(
                "a number of signatures is required, and nobody is trusted; name the trusted keys "
                "(--trusted)"
            )
        return policies


ANYBODY = Trust()
"""Asks for nothing by itself."""

JUST_MADE = Trust()
"""For a patch that this process has made itself and tries on a model that nobody else gets: it
cannot be signed yet, so that it is not checked. Told by identity from :data:`ANYBODY`."""


@dataclass(frozen=True)
class PolicyAnswer:
    """What a policy says of a patch.

    Attributes:
        source: what the policy is: a file, or "this call".
        signed: the signatures as this policy sees them; whether they satisfy it.
    """

    source: str
    signed: SignatureReport


def demand_trust(patch: Patch, trust: Trust) -> tuple[PolicyAnswer, ...]:
    """Refuse an open patch that a call must not take, before anything is done with it.

    Returns:
        The answers of all policies, which are all satisfied.

    Raises:
        SignatureError: a policy is not satisfied, cannot be read, or forbids ``allow_code``.
        UsageError: ``trust`` is something else, or names numbers or signatures without keys.
        MissingExtraError: there is a policy, and the extra ``sign`` is not installed.
    """
    answers = ask_policies(patch, trust)
    demand_all(answers)
    return answers


def demand_all(answers: Sequence[PolicyAnswer]) -> None:
    """Refuse a patch that does not satisfy all of its policies.

    Raises:
        SignatureError: says which one, and why.
    """
    for answer in answers:
        with naming(answer.source):
            demand(answer.signed)


def ask_policies(patch: Patch, trust: Trust) -> tuple[PolicyAnswer, ...]:
    """What each policy says of an open patch; :func:`demand_trust` has the errors."""
    if not isinstance(trust, Trust):
        raise UsageError(f"trust is {trust!r:.80}; give a patchc.Trust")
    if trust is JUST_MADE:
        return ()
    policies, now = policies_in_force(trust), datetime.now(UTC)
    return tuple(_ask(policy, patch, listed(trust.signatures), now) for policy in policies)


def policies_in_force(trust: Trust) -> tuple[SigningPolicy, ...]:
    """All policies that a patch has to satisfy: those of the call, and those that stand anyway.

    Raises:
        SignatureError: one cannot be used, or forbids ``allow_code``.
        UsageError: as :func:`demand_trust`.
    """
    policies = (*trust.asked(), *standing_policies())
    for policy in policies:
        if trust.allow_code and not policy.allow_code:
            raise SignatureError(
                f"{policy.source}: allow_code is not true there, so that no call may take patches "
                "with code; leave --allow-code out, or ask whoever keeps the policy"
            )
    if listed(trust.signatures) and not policies:
        raise UsageError(
            "a signature is given, and nobody is trusted whose it could be; name the trusted keys "
            "(--trusted)"
        )
    return policies


def _ask(
    policy: SigningPolicy, patch: Patch, detached: Sequence[Path], now: datetime
) -> PolicyAnswer:
    with naming(policy.source):
        signed = check_signatures(patch, detached, policy.trusted, policy.require, now)
    return PolicyAnswer(policy.source, signed)
