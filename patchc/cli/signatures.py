"""The signatures of a patch as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patchc.verbs.verify import VerifyReport


def signature_facts(report: VerifyReport) -> dict[str, object]:
    """Say whether a patch is signed as required, and what became of each signature."""
    checked = report.signatures
    if checked is None:
        told = {"not checked": "not checked: no key is trusted (--trusted)"}
        return {"signature": told.get(report.signature, report.signature)}
    number = f"{len(checked.valid)} of {checked.required}"
    facts: dict[str, object] = {"signature": f"{report.signature}: {number}"}
    for place, one in enumerate(checked.signatures, start=1):
        where = f", {one.source}" if one.source else ""
        facts[f"signature {place}"] = (
            f"{one.state}, key {one.key_id}, expires {one.expires or 'never'}{where}"
        )
    return facts
