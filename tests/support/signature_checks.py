"""Checks of signatures of a patch file that is put together in the working folder."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from signed_patches import NOW

from patchc.formats import open_patch
from patchc.signing.check import SignatureReport, check_signatures


def check(
    data: bytes,
    *trusted: str,
    require: int = 1,
    detached: Sequence[bytes] = (),
    now: datetime = NOW,
) -> SignatureReport:
    """Write a patch and detached signatures, and check them with trusted keys."""
    Path("x.patchc").write_bytes(data)
    files = [Path(f"{number}.sig") for number, _ in enumerate(detached)]
    for path, text in zip(files, detached, strict=True):
        path.write_bytes(text + b"\n")
    with open_patch("x.patchc") as patch:
        return check_signatures(patch, files, [Path(one) for one in trusted], require, now)
