"""The signatures of a patch as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchc.signing.policy import THIS_CALL

if TYPE_CHECKING:
    from patchc.verbs.verify import VerifyReport


def signature_facts(report: VerifyReport) -> dict[str, object]:
    """Say whether a patch is signed as required, and what became of each signature."""
    if not report.policies:
        told = {"not checked": "not checked: no key is trusted (--trusted)"}
        return {"signature": told.get(report.signature, report.signature)}
    facts: dict[str, object] = {}
    for policy in report.policies:
        mark = "" if policy.source == THIS_CALL else f" ({policy.source})"
        checked = policy.signed
        answer = "as required" if checked.satisfied else "not as required"
        facts[f"signature{mark}"] = f"{answer}: {len(checked.valid)} of {checked.required}"
        for place, one in enumerate(checked.signatures, start=1):
            where = f", {one.source}" if one.source else ""
            facts[f"signature {place}{mark}"] = (
                f"{one.state}, key {one.key_id}, expires {one.expires or 'never'}{where}"
            )
    return facts
