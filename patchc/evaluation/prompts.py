"""Requests as one model's tokens, in batches that depend only on the requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchc.derivation.base_model import load_tokenizer
from patchc.derivation.chat_template import Talk, all_of, render
from patchc.derivation.examples import Example, Tokens, in_batches
from patchc.errors import DeriveError, EvaluateError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.requests import Request, RequestSets, SetName, with_system
from patchc.evaluation.results import request_digests

Choices = tuple[Tokens, ...]
"""The tokens of a question's choices; empty for a request without any."""

_SHOWN = 40


@dataclass(frozen=True)
class Prompts:
    """Requests as encoded by a tokenizer; they serve every model that shares it.

    Attributes:
        tokenizer: the model's.
        tokens: each set's requests as token ids, up to where the assistant speaks.
        batches: each set's requests in batches, by their numbers: shortest first, then in the
            file's order. Rounding depends on a batch's shape, so a set's batches depend on that set
            alone.
        keys: each set's digests, one per request.
        choices: each set's choices as token ids; those of a request that has none are empty.
    """

    tokenizer: Any
    tokens: dict[SetName, list[list[int]]]
    batches: dict[SetName, list[Sequence[int]]]
    keys: dict[SetName, list[str]]
    choices: dict[SetName, list[Choices]]


def encode_prompts(folder: Path, requests: RequestSets, options: EvaluateOptions) -> Prompts:
    """Render all requests with the chat template of a model's folder and tokenise them.

    Raises:
        EvaluateError: there is no tokenizer or chat template, the template refuses a request or
            leaves out what it says, or the tokenizer cannot tell a question's choices apart.
    """
    asked = [(name, request) for name, each in requests.items() for request in each]
    try:
        tokenizer = load_tokenizer(folder)
        texts = all_of(render(tokenizer, [_talk(request, options.system) for _, request in asked]))
    except DeriveError as error:
        raise EvaluateError(str(error)) from error
    tokens: dict[SetName, list[list[int]]] = {name: [] for name, _ in requests.items()}
    for (name, request), text in zip(asked, texts, strict=True):
        tokens[name].append(_encode(tokenizer, request, text))
    batches: dict[SetName, list[Sequence[int]]] = {}
    for name, encoded in tokens.items():
        order = sorted(range(len(encoded)), key=[*map(len, encoded)].__getitem__)
        batches[name] = list(in_batches(order, options.batch_size))
    choices = {
        name: [_encode_choices(tokenizer, one) for one in each] for name, each in requests.items()
    }
    return Prompts(tokenizer, tokens, batches, request_digests(requests, tokens), choices)


def encode_answers(prompts: Prompts, harmless: Sequence[Request]) -> list[Example]:
    """Encode the reference answers to harmless requests, each with its request.

    An answer's tokens are its text's alone, without the end of the turn.
    """
    encode = prompts.tokenizer.encode
    return [
        Example(tuple(tokens), tuple(encode(request.response, add_special_tokens=False)))
        for tokens, request in zip(prompts.tokens["harmless"], harmless, strict=True)
        if request.response is not None
    ]


def _talk(request: Request, system: str | None) -> Talk:
    return Talk(request.source, with_system(request.messages, system), asks=True)


def _encode(tokenizer: Any, request: Request, text: str) -> list[int]:
    encoded: list[int] = tokenizer.encode(text, add_special_tokens=False)
    if not encoded:
        raise EvaluateError(f"{request.source}: the chat template turns the request into no token")
    return encoded


def _encode_choices(tokenizer: Any, request: Request) -> Choices:
    """Encode the texts of a question's choices alone, without the end of the turn."""
    encoded = [tuple(tokenizer.encode(one, add_special_tokens=False)) for one in request.choices]
    for choice, tokens in zip(request.choices, encoded, strict=True):
        first = request.choices[encoded.index(tokens)]
        if not tokens or first != choice:
            made = f"the same tokens as {first!r:.{_SHOWN}}" if tokens else "no token"
            raise EvaluateError(
                f"{request.source}: the model's tokenizer turns choice {choice!r:.{_SHOWN}} into "
                f"{made}; write the choices in other words"
            )
    return tuple(encoded)
