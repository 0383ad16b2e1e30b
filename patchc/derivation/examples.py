"""Conversations as token ids, split into prompt and response, and the loss of the response."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from patchc.derivation.chat_template import Talk, all_of, render
from patchc.derivation.conversations import Conversation
from patchc.derivation.head_places import chosen_log_probabilities
from patchc.errors import DeriveError

T = TypeVar("T")
Tokens = tuple[int, ...]
BATCH = 16
"""Examples that pass a model together where nothing else is said."""


@dataclass(frozen=True)
class Example:
    """One conversation: ``prompt`` and ``response`` token ids, neither empty."""

    prompt: Tokens
    response: Tokens


@dataclass(frozen=True)
class Batch:
    """Examples padded on the right to one length.

    Attributes:
        tokens: int64 [examples, length].
        weights: fp32 [examples, length]; the weight of each token's loss in the batch's mean, 0
            outside responses. An example's weights sum to 1 / examples.
    """

    tokens: Tensor
    weights: Tensor


def encode(tokenizer: Any, conversations: Sequence[Conversation], max_length: int) -> list[Example]:
    """Tokenise conversations as generation would see them: prompt first, then the response.

    The prompt ends where the chat template asks the assistant to speak. The response runs to the
    end of its turn, end-of-turn token included, and is cut so that both fit in ``max_length``.

    Raises:
        DeriveError: the template fails on a conversation, leaves out what was said or does not
            place the last turn at the end, or the prompt alone fills ``max_length``.
    """
    texts = all_of(_split(tokenizer, conversations))
    return [
        _encode(tokenizer, one.source, *text, max_length)
        for one, text in zip(conversations, texts, strict=True)
    ]


def encode_openings(
    tokenizer: Any, conversations: Sequence[Conversation]
) -> list[Tokens | DeriveError]:
    """Tokenise each last turn as the beginning of a reply, without the end of the turn.

    Where :func:`encode` would raise an error, or the template does not repeat the turn unchanged,
    the error stands in its place.

    Raises:
        DeriveError: the template takes too long.
    """
    found: list[Tokens | DeriveError] = []
    for one, texts in zip(conversations, _split(tokenizer, conversations), strict=True):
        if isinstance(texts, DeriveError):
            found.append(texts)
            continue
        said = one.messages[-1]["content"]
        before, repeated, _ = texts[1].partition(said)
        found.append(
            tuple(tokenizer.encode(before + said, add_special_tokens=False))
            if repeated
            else DeriveError(
                f"{one.source}: the chat template does not repeat {said!r:.80} unchanged; leave "
                "out what it changes, such as outer white space"
            )
        )
    return found


def pad(examples: Sequence[Example], device: torch.device) -> Batch:
    """Stack examples into a :class:`Batch` on a device."""
    length = max(len(example.prompt) + len(example.response) for example in examples)
    tokens = torch.zeros(len(examples), length, dtype=torch.int64)
    weights = torch.zeros(len(examples), length)
    for row, example in enumerate(examples):
        start, end = len(example.prompt), len(example.prompt) + len(example.response)
        tokens[row, :end] = torch.tensor(example.prompt + example.response)
        weights[row, start:end] = 1.0 / (len(example.response) * len(examples))
    return Batch(tokens.to(device), weights.to(device))


def in_batches(items: Sequence[T], size: int = BATCH) -> Iterator[Sequence[T]]:
    """Yield the items in order, ``size`` at a time; the last batch may be smaller."""
    return (items[first : first + size] for first in range(0, len(items), size))


def shuffled(examples: Sequence[T], size: int, seed: int) -> Iterator[list[T]]:
    """Yield batches of ``size`` without end, from pass after reshuffled pass over the data."""
    order = random.Random(seed)
    waiting: list[T] = []
    while True:
        while len(waiting) < size:
            waiting += order.sample(examples, len(examples))
        yield waiting[:size]
        waiting = waiting[size:]


def mean_loss(model: Any, batch: Batch) -> Tensor:
    """Compute −(1/|y|) Σ log p(y_i | x, y_<i), averaged over a batch; a scalar in fp32."""
    losses, counted = _token_losses(model, batch)
    return (losses * batch.weights[:, 1:][counted]).sum()


def log_probabilities(model: Any, batch: Batch) -> Tensor:
    """Compute log p(y | x) = Σ log p(y_i | x, y_<i) of each response; fp32 [examples]."""
    losses, counted = _token_losses(model, batch)
    rows = losses.split(counted.sum(dim=1).tolist())  # type: ignore[no-untyped-call]
    return -torch.stack([row.sum() for row in rows])


def _token_losses(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Compute −log p of the responses' tokens, in order, and the mask that finds them."""
    counted = batch.weights[:, 1:] > 0
    likely = chosen_log_probabilities(
        model,
        lambda states: states[:, :-1][counted],
        batch.tokens[:, 1:][counted][:, None],
        # Padding comes last, and no token looks ahead: a mask would take the square of the length.
        input_ids=batch.tokens,
    )
    return -likely[:, 0], counted


def _encode(
    tokenizer: Any, source: str, prompt_text: str, response_text: str, max_length: int
) -> Example:
    prompt = tokenizer.encode(prompt_text, add_special_tokens=False)
    response = tokenizer.encode(response_text.rstrip(), add_special_tokens=False)
    room = max_length - len(prompt)
    if room < 1 or not response or not prompt:
        raise DeriveError(
            f"{source}: {len(prompt)} prompt tokens and {len(response)} response tokens do not fit "
            f"a length of {max_length}; raise the maximum length or shorten the conversation"
        )
    return Example(tuple(prompt), tuple(response[:room]))


def _split(
    tokenizer: Any, conversations: Sequence[Conversation]
) -> list[tuple[str, str] | DeriveError]:
    """Render conversations, and cut each where the assistant speaks for the last time."""
    # One right after the other, since templates can write the time of day.
    talks = [
        talk
        for one in conversations
        for talk in (
            Talk(one.source, one.messages[:-1], asks=True),
            Talk(one.source, one.messages, asks=False),
        )
    ]
    rendered = render(tokenizer, talks)
    sources = [one.source for one in conversations]
    return list(map(_cut, sources, rendered[::2], rendered[1::2]))


def _cut(
    source: str, prompt: str | DeriveError, text: str | DeriveError
) -> tuple[str, str] | DeriveError:
    if isinstance(prompt, DeriveError):
        return prompt
    if isinstance(text, DeriveError):
        return text
    if not text.startswith(prompt):
        return DeriveError(
            f"{source}: the chat template does not render the conversation as the prompt followed "
            "by the response; use a template whose assistant turn extends its prompt"
        )
    return prompt, text[len(prompt) :]
