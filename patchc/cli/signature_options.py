"""The options that say whose signatures a patch has to have."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from patchc.cli.options import option

_of_signatures = partial(option, panel="Signatures")

Trusted = Annotated[
    list[str] | None,  # as paths, empty ones would be the folder at hand, with keys of anybody
    _of_signatures(
        "Public key whose signatures count, or a folder of keys *.pub. May be given several times.",
        metavar="PATH",
    ),
]
Require = Annotated[
    int | None,
    _of_signatures(
        "How many of the trusted keys must have signed.", shown="1", min=1, max=1000, metavar="N"
    ),
]
Signatures = Annotated[
    list[Path] | None,
    _of_signatures(
        "Detached signature, beside those in the patch. May be given several times.",
        "--signature",
        metavar="FILE",
    ),
]
