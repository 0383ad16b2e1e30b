"""Greedy replies of a causal language model, a batch at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from patchc.checkpoint import Checkpoint
from patchc.errors import EvaluateError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.loading import load_whole

_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


class Speaker:
    """A loaded model that gives greedy replies.

    The sampling settings that a checkpoint carries (temperature, penalties) do not enter; its end
    of turn tokens do.
    """

    def __init__(self, folder: Path, model: Any, tokenizer: Any, max_new_tokens: int) -> None:
        self._folder = folder
        self.model = model
        self.tokenizer = tokenizer
        self._ends = _end_tokens(model, tokenizer)
        pad = tokenizer.pad_token_id
        self._pad = pad if pad is not None else next(iter(self._ends), 0)
        model.generation_config = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            pad_token_id=self._pad,
            eos_token_id=sorted(self._ends) or None,
        )
        longest = stated_length(model.config)
        self._longest = (1 << 62 if longest is None else longest) - max_new_tokens

    def reply(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """Replies to prompts of token ids, without special tokens and outer white space.

        Raises:
            EvaluateError: a prompt leaves no room for the reply.
        """
        length = max(map(len, prompts))
        if length > self._longest:
            raise EvaluateError(
                f"{self._folder}: a request of {length} tokens leaves no room for the reply in "
                "the model's length; ask shorter requests or for fewer new tokens"
            )
        tokens = torch.full((len(prompts), length), self._pad, dtype=torch.int64)
        attended = torch.zeros_like(tokens)
        for row, prompt in enumerate(prompts):
            tokens[row, length - len(prompt) :] = torch.tensor(prompt)
            attended[row, length - len(prompt) :] = 1
        device = self.model.device
        with torch.inference_mode():
            spoken = self.model.generate(
                input_ids=tokens.to(device), attention_mask=attended.to(device)
            )
        return [self._decode(row) for row in spoken[:, length:].tolist()]

    def _decode(self, tokens: list[int]) -> str:
        end = next((at for at, token in enumerate(tokens) if token in self._ends), len(tokens))
        text: str = self.tokenizer.decode(tokens[:end], skip_special_tokens=True)
        return text.strip()


def load_speaker(
    checkpoint: Checkpoint, tokenizer: Any, device: torch.device, options: EvaluateOptions
) -> Speaker:
    """Load a checkpoint's folder as a causal language model, in the dtype of the options.

    Raises:
        UnsupportedInputError: transformers cannot load it, or not all of it is there.
    """
    model = load_whole(
        AutoModelForCausalLM,
        checkpoint.path,
        "a causal language model",
        dtype=_dtype(checkpoint, options),
    )
    return Speaker(checkpoint.path, model.to(device).eval(), tokenizer, options.max_new_tokens)


def _dtype(checkpoint: Checkpoint, options: EvaluateOptions) -> torch.dtype | str:
    if options.dtype != "auto":
        return torch.float32 if options.dtype == "float32" else torch.bfloat16
    words: Counter[str] = Counter()
    for tensor in checkpoint.tensors.values():
        words[tensor.dtype.name] += tensor.words
    return _DTYPES.get(words.most_common(1)[0][0], "auto") if words else "auto"


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    stated = [model.generation_config.eos_token_id, model.config.eos_token_id]
    ends = {tokenizer.eos_token_id}
    for value in stated:
        ends |= set(value) if isinstance(value, list | tuple) else {value}
    return frozenset(ends - {None})


def stated_length(config: Any) -> int | None:
    """Most tokens that a model takes, or None where its config does not say."""
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    return longest if isinstance(longest, int) and longest > 0 else None
