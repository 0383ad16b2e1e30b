"""Conversations as token ids, split into prompt and response, and the loss of the response."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jinja2 import TemplateError
from torch import Tensor

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


def encode(tokenizer: Any, conversation: Conversation, max_length: int) -> Example:
    """Tokenise a conversation as generation would see it: prompt first, then the response.

    The prompt ends where the chat template asks the assistant to speak. The response runs to the
    end of its turn, end-of-turn token included, and is cut so that both fit in ``max_length``.

    Raises:
        DeriveError: the template fails on the conversation or does not place the last turn at the
            end, or the prompt alone fills ``max_length``.
    """
    prompt_text, response_text = _split(tokenizer, conversation)
    prompt = tokenizer.encode(prompt_text, add_special_tokens=False)
    response = tokenizer.encode(response_text.rstrip(), add_special_tokens=False)
    room = max_length - len(prompt)
    if room < 1 or not response or not prompt:
        raise DeriveError(
            f"{conversation.source}: {len(prompt)} prompt tokens and {len(response)} response "
            f"tokens do not fit a length of {max_length}; raise the maximum length or shorten the "
            "conversation"
        )
    return Example(tuple(prompt), tuple(response[:room]))


def encode_opening(tokenizer: Any, conversation: Conversation) -> Tokens:
    """Tokenise the last turn as the beginning of a reply, without the end of the turn.

    Raises:
        DeriveError: as :func:`encode`, or the template does not repeat the turn unchanged.
    """
    text = conversation.messages[-1]["content"]
    before, found, _ = _split(tokenizer, conversation)[1].partition(text)
    if not found:
        raise DeriveError(
            f"{conversation.source}: the chat template does not repeat {text!r} unchanged; leave "
            "out what it changes, such as outer white space"
        )
    return tuple(tokenizer.encode(before + text, add_special_tokens=False))


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


def _split(tokenizer: Any, conversation: Conversation) -> tuple[str, str]:
    """Render a conversation, and cut it where the assistant speaks for the last time."""
    source, messages = conversation.source, list(conversation.messages)
    try:
        prompt: str = tokenizer.apply_chat_template(
            messages[:-1], tokenize=False, add_generation_prompt=True
        )
        text: str = tokenizer.apply_chat_template(messages, tokenize=False)
    except TemplateError as error:
        raise DeriveError(
            f"{source}: the model's chat template refuses the conversation ({error})"
        ) from error
    if not text.startswith(prompt):
        raise DeriveError(
            f"{source}: the chat template does not render the conversation as the prompt followed "
            "by the response; use a template whose assistant turn extends its prompt"
        )
    return prompt, text[len(prompt) :]
