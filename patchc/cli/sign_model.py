"""``patchc sign-model``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from patchc.cli.options import FollowLinks, Json, ModelPath, Threads, option, without
from patchc.cli.passwords import PasswordFile


def sign_model(
    model: ModelPath,
    key: Annotated[
        Path, option("Private key of curve P-256, P-384 or P-521 (PEM).", metavar="FILE")
    ],
    out: Annotated[Path, option("Bundle to write, outside MODEL.", "-o", "--out")],
    follow_links: FollowLinks = False,
    threads: Threads = None,
    password_file: PasswordFile = None,
    json: Json = False,
) -> None:
    """Sign the files of a model, such as a patched one, as OpenSSF model signing does.

    The bundle has the SHA-256 of every file. `model_signing verify key` accepts it, and
    `patchc verify-model`. It needs the oms extra.

    Example: patchc sign-model models/fixed --key p256.key -o fixed.sig
    """
    given = without(locals(), "json", "password_file")
    import patchc
    from patchc.cli.output import print_facts, print_json
    from patchc.cli.passwords import password_of
    from patchc.cli.showing_progress import showing_progress

    password = password_of(key, password_file)
    with showing_progress() as progress:
        report = patchc.sign_model(**given, password=password, progress=progress)
    if json:
        print_json(report)
        return
    facts: dict[str, object] = {
        "files": len(report.files),
        "key": report.key_id,
        "digest": report.digest,
    }
    if report.left_out:
        facts["not signed"] = ", ".join(report.left_out)
    print_facts(f"sign-model: wrote {out}", facts)
