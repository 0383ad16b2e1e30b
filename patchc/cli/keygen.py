"""``patchc keygen``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from patchc.cli.options import Json, argument, option
from patchc.cli.passwords import PasswordFile


def keygen(
    out: Annotated[
        Path, argument("File of the private key; NAME.pub gets the public one.", "NAME")
    ],
    encrypt: Annotated[
        bool, option("Encrypt the private key with a password.", "--encrypt")
    ] = False,
    password_file: PasswordFile = None,
    json: Json = False,
) -> None:
    """Make a pair of Ed25519 keys: NAME to sign patches with, NAME.pub for those who check them.

    Only you can read the private key; keep it, and give away the public one. No file is replaced.

    Example: patchc keygen release --encrypt
    """
    import patchc
    from patchc.cli.output import print_facts, print_json, print_next
    from patchc.cli.passwords import new_password
    from patchc.errors import UsageError

    if password_file is not None and not encrypt:
        raise UsageError("a password file is for a key that is encrypted; add --encrypt")
    report = patchc.keygen(out, password=new_password(password_file) if encrypt else None)
    if json:
        print_json(report)
        return
    facts: dict[str, object] = {
        "private key": f"{report.private} ({'' if encrypt else 'not '}encrypted; keep it)",
        "public key": f"{report.public} (give it to those who check)",
        "key id": report.key_id,
    }
    print_facts(f"keygen: wrote {report.private} and {report.public}", facts)
    print_next("sign", "fix.patchc", "--key", report.private)
