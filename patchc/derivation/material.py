"""What a derivation learns from, once it is read and, where needed, the base has been asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from patchc.derivation.conversations import Conversation
from patchc.derivation.openings import Openings

if TYPE_CHECKING:
    from patchc.derivation.margin import Labelled

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Material:
    """Conversations, or labelled requests with openings.

    Attributes:
        conversations: whose last turns are learnt or unlearnt; empty for the objective "margin".
        labelled: requests as tokens, for the objective "margin".
        openings: how refusals begin, for the objective "margin".
        anchors: prompts and the base's replies to them, as tokens.
        record: for the record of the run: where all this comes from, as JSON values.
    """

    conversations: tuple[Conversation, ...] = ()
    labelled: tuple[Labelled, ...] = ()
    openings: Openings | None = None
    anchors: tuple[tuple[Tokens, Tokens], ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
