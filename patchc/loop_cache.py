"""Machine code that Numba keeps from earlier runs, forgotten once a source has changed.

Numba itself forgets a loop when the file changes that the loop stands in. What the loop calls from
other files, and the constants that it takes from them, are in its machine code as well: after an
update of these alone, the old code would go on running.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from blake3 import blake3

_STAMP = "patchc-sources"
_FOLDERS = (".", "kernels", "formats")
"""The folders of the package in which, or below which, compiled functions stand."""


def forget_outdated(folder: Path) -> None:
    """Remove the index of every loop that is kept in a folder, unless made from today's sources.

    Another process may do the same at the same time; both compile again then.
    """
    stamp = folder / _STAMP
    try:
        if stamp.read_text() == sources_digest():
            return
    except (OSError, UnicodeDecodeError):
        pass  # there is none, or it is damaged
    for index in folder.glob("*.nbi"):
        index.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    stamp.write_text(sources_digest())


@cache
def sources_digest() -> str:
    """A digest of all sources that compiled functions may be made of."""
    package = Path(__file__).parent
    digests = [
        blake3(path.read_bytes()).digest()
        for folder in _FOLDERS
        for path in sorted((package / folder).glob("*.py" if folder == "." else "**/*.py"))
    ]
    return blake3(b"".join(digests)).hexdigest()
