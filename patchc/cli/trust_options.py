"""The options that say what patches a command takes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from patchc.cli.options import option

if TYPE_CHECKING:
    from patchc.signing.trust import Trust

_of_trust = partial(option, panel="Whose patches are taken")

AllowCode = Annotated[
    bool,
    _of_trust(
        "Take a patch that brings files which a loader or an interpreter would run.", "--allow-code"
    ),
]


def with_trust(given: Mapping[str, Any]) -> dict[str, Any]:
    """Put what a command was given of these options together, as its verb takes them."""
    rest = dict(given)
    return rest | {"trust": _trust(rest.pop("allow_code"))}


def _trust(allow_code: bool) -> Trust:
    from patchc.signing.trust import Trust

    return Trust(allow_code=allow_code)
