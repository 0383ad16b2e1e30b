"""The base's own greedy replies: where its refusals, its answers and the anchors come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from patchc.checkpoint import Checkpoint
from patchc.derivation.aligned import align
from patchc.derivation.session import choose_device, quiet_transformers, reproducible
from patchc.errors import DeriveError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.generation import load_speaker
from patchc.evaluation.judges import open_judge
from patchc.evaluation.prompts import Prompts, encode_prompts
from patchc.evaluation.requests import RequestSets, SetName
from patchc.evaluation.verdicts import Verdict
from patchc.progress import Progress, ProgressEvent

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Reply:
    """The base's reply to one request.

    Attributes:
        tokens: with the end of the turn, where it ended; never empty.
        text: without special tokens and outer white space.
        ended: whether the reply ended within the longest length.
        verdict: the judge's.
    """

    tokens: Tokens
    text: str
    ended: bool
    verdict: Verdict


def encode_requests(
    checkpoint: Checkpoint, requests: RequestSets, options: EvaluateOptions, max_length: int
) -> Prompts:
    """The requests as tokens.

    Raises:
        DeriveError: a request leaves no room for a reply within ``max_length`` tokens.
        EvaluateError: there is no chat template, or it refuses a request.
    """
    encoded = encode_prompts(checkpoint.path, requests, options)
    for name, asked in requests.items():
        for request, tokens in zip(asked, encoded.tokens[name], strict=True):
            if len(tokens) >= max_length:
                raise DeriveError(
                    f"{request.source}: {len(tokens)} prompt tokens do not fit a length of "
                    f"{max_length}; raise the maximum length or shorten the request"
                )
    return encoded


def ask_base(
    checkpoint: Checkpoint,
    requests: RequestSets,
    encoded: Prompts,
    options: EvaluateOptions,
    progress: Progress,
) -> dict[SetName, list[Reply]]:
    """The base's replies to all requests, and the judge's verdicts on them.

    The base is loaded in the dtype that it is stored in, and given up afterwards.

    Raises:
        EvaluateError: the judge fails.
        UnsupportedInputError: transformers cannot load the base.
        UsageError: there is no such judge or device.
    """
    judge, device = open_judge(options), choose_device(options.device)
    found: dict[SetName, list[Reply]] = {}
    with quiet_transformers(), reproducible(device, 0):
        speaker = load_speaker(checkpoint, encoded.tokenizer, device, options)
        ends = speaker.model.generation_config.eos_token_id or ()
        for name, asked in requests.items():
            spoken: dict[int, Tokens] = {}
            for numbers in encoded.batches[name]:
                prompts = [encoded.tokens[name][number] for number in numbers]
                spoken |= zip(numbers, _speak(speaker.model, prompts, ends), strict=True)
                progress(ProgressEvent(f"ask base: {name}", len(spoken), len(asked), "requests"))
            replies = [spoken[number] for number in range(len(asked))]
            texts = [_text(encoded.tokenizer, tokens, ends) for tokens in replies]
            verdicts = judge([request.prompt for request in asked], texts)
            found[name] = [
                Reply(tokens, text, tokens[-1] in ends, verdict)
                for tokens, text, verdict in zip(replies, texts, verdicts, strict=True)
            ]
    return found


def _speak(model: Any, prompts: Sequence[Sequence[int]], ends: Sequence[int]) -> list[Tokens]:
    """Greedy replies, each up to its end of turn, which is kept: it tells replies apart too."""
    batch = align(prompts, [()] * len(prompts), model.device)
    with torch.inference_mode():
        spoken = model.generate(input_ids=batch.tokens, attention_mask=batch.attended)
    replies = []
    for row in spoken[:, batch.tokens.shape[1] :].tolist():
        end = next((at for at, token in enumerate(row) if token in ends), len(row))
        replies.append(tuple(row[: end + 1]))
    return replies


def _text(tokenizer: Any, tokens: Tokens, ends: Sequence[int]) -> str:
    said = tokens[:-1] if tokens[-1] in ends else tokens
    text: str = tokenizer.decode(said, skip_special_tokens=True)
    return text.strip()
