"""Requests as one model's tokens, in batches that depend on nothing but the requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchc.derivation.base_model import load_tokenizer
from patchc.derivation.examples import Example
from patchc.errors import DeriveError, EvaluateError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.requests import Request, RequestSets, SetName
from patchc.evaluation.results import request_digest


@dataclass(frozen=True)
class Prompts:
    """What a tokenizer makes of the requests; good for every model that shares it.

    Attributes:
        tokenizer: the model's.
        tokens: of each set, the token ids of each request, up to where the assistant speaks.
        batches: of each set, the numbers of the requests to generate together: shortest first,
            then in the file's order. Rounding depends on a batch's shape, so the batches of a set
            depend on that set alone.
        keys: of each set, a digest for each request.
    """

    tokenizer: Any
    tokens: dict[SetName, list[list[int]]]
    batches: dict[SetName, list[list[int]]]
    keys: dict[SetName, list[str]]


def encode_prompts(folder: Path, requests: RequestSets, options: EvaluateOptions) -> Prompts:
    """Render all requests with the chat template of a model's folder and tokenise them.

    Raises:
        EvaluateError: there is no tokenizer or chat template, or the template refuses a request.
    """
    try:
        tokenizer = load_tokenizer(folder)
    except DeriveError as error:
        raise EvaluateError(str(error)) from error
    tokens = {
        name: [_encode(tokenizer, request, options.system) for request in asked]
        for name, asked in requests.items()
    }
    return Prompts(
        tokenizer,
        tokens,
        {name: _batches(encoded, options.batch_size) for name, encoded in tokens.items()},
        {
            name: [
                request_digest(number, request, tokens[name][number])
                for number, request in enumerate(asked)
            ]
            for name, asked in requests.items()
        },
    )


def encode_answers(prompts: Prompts, harmless: Sequence[Request]) -> list[Example]:
    """The reference answers to the harmless requests that have one, each after its request.

    An answer's tokens are its text's alone, without the end of the turn.
    """
    return [
        Example(tuple(tokens), tuple(_encode_text(prompts.tokenizer, request.response)))
        for tokens, request in zip(prompts.tokens["harmless"], harmless, strict=True)
        if request.response is not None
    ]


def _encode(tokenizer: Any, request: Request, system: str | None) -> list[int]:
    messages = list(request.messages)
    if system is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:
        raise EvaluateError(
            f"{request.source}: the model's chat template refuses the request "
            f"({type(error).__name__}: {error})"
        ) from error
    encoded = _encode_text(tokenizer, text)
    if not encoded:
        raise EvaluateError(f"{request.source}: the chat template makes no token of the request")
    return encoded


def _encode_text(tokenizer: Any, text: str) -> list[int]:
    encoded: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return encoded


def _batches(encoded: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    order = sorted(range(len(encoded)), key=lambda number: (len(encoded[number]), number))
    return [order[first : first + size] for first in range(0, len(order), size)]
