"""``patchc sign``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from patchc.cli.options import Json, PatchFile, option, without
from patchc.cli.passwords import PasswordFile


def sign(
    patch: PatchFile,
    key: Annotated[Path, option("Private key, as `patchc keygen` writes it.", metavar="FILE")],
    out: Annotated[
        Path | None,
        option("Signed patch to write; without it, PATCH itself is signed.", "-o", "--out"),
    ] = None,
    detached: Annotated[
        Path | None,
        option(
            "Write the signature alone, with a statement of its own; PATCH stays as it is.",
            metavar="FILE",
        ),
    ] = None,
    expires: Annotated[
        str | None,
        option(
            "When the signature ends to count: 90d from now, a day such as 2027-06-30, or a time "
            "such as 2027-06-30T12:00:00Z; a further signature ends with the first.",
            shown="never",
            metavar="WHEN",
        ),
    ] = None,
    replace: Annotated[
        bool, option("Drop the signatures that PATCH has, and state anew.", "--replace")
    ] = False,
    password_file: PasswordFile = None,
    json: Json = False,
) -> None:
    """Sign a patch with an Ed25519 key: what it is, what it leads from and to, and until when.

    The signature is a DSSE envelope with an in-toto statement. The patch's digests stay the same. A
    patch that is signed gets a further signature of the same statement.

    Example: patchc sign fix.patchc --key release --expires 90d
    """
    given = without(locals(), "json", "password_file")
    import patchc
    from patchc.cli.output import print_facts, print_json, print_next
    from patchc.cli.passwords import password_of

    report = patchc.sign(**given, password=password_of(key, password_file))
    if json:
        print_json(report)
        return
    what = f"signed {patch}, in {report.out}" if detached else f"signed {report.out}"
    if not report.added:
        what = f"{key} has signed {patch}; {f'{out} is a copy' if out else 'nothing to do'}"
    others = [one for one in report.key_ids if one != report.key_id]
    facts: dict[str, object] = {"root": report.root, "key id": report.key_id}
    for number, one in enumerate(others, start=1):
        facts[f"further key {number}"] = f"{one} (not checked)"
    facts |= {"issued": report.issued, "expires": report.expires or "never"}
    print_facts(f"sign: {what}", facts)
    public = Path(f"{key}.pub")
    shown = ["--signature", report.out] if detached else []
    if public.exists():
        print_next("verify", patch if detached else report.out, "--trusted", public, *shown)
