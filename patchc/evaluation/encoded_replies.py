"""Replies as the tokens with which a model would begin its turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from patchc.derivation.conversations import Conversation
from patchc.derivation.examples import Tokens, encode_openings
from patchc.errors import DeriveError
from patchc.evaluation.requests import Request


def encode_replies(
    tokenizer: Any, requests: Sequence[Request], texts: Sequence[str], most: int
) -> list[Tokens]:
    """Encode the first tokens of replies, at most ``most`` of each; an empty reply has none.

    Raises:
        DeriveError: the chat template takes too long.
    """
    texts = [text.strip() for text in texts]
    said = [
        Conversation(one.source, (*one.messages, {"role": "assistant", "content": text}))
        for one, text in zip(requests, texts, strict=True)
        if text
    ]
    encoded = iter(encode_openings(tokenizer, said))
    found: list[Tokens] = []
    for text in texts:
        tokens: Tokens | DeriveError = next(encoded) if text else ()
        if isinstance(tokens, DeriveError):
            # The template changes what was said; the best tokens left are those of the text alone.
            tokens = tuple(tokenizer.encode(text, add_special_tokens=False))
        found.append(tokens[:most])
    return found
