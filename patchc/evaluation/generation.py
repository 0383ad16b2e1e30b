"""Greedy replies of a causal language model, one batch at a time (needs torch)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from patchc.checkpoint import Checkpoint
from patchc.derivation.aligned import align
from patchc.errors import EvaluateError, UnsupportedInputError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.layered.from_folder import check_tokens, load_model

_DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
_SHOWN = 3


class Speaker:
    """A loaded model that gives greedy replies.

    The checkpoint's sampling settings (temperature, penalties) are ignored; its end-of-turn tokens
    are used.
    """

    def __init__(self, folder: Path, model: Any, tokenizer: Any, max_new_tokens: int) -> None:
        self._folder = folder
        self.model = model
        self.tokenizer = tokenizer
        self._words: int = model.get_input_embeddings().num_embeddings
        stated = tokenizer, model.generation_config, model.config
        self.ends = frozenset(end for one in stated for end in self._known(one.eos_token_id))
        pad = next(self._known(tokenizer.pad_token_id), None)
        model.generation_config = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            pad_token_id=pad if pad is not None else next(iter(self.ends), 0),
            eos_token_id=sorted(self.ends) or None,
        )
        self._longest = (stated_length(model.config) or 1 << 62) - max_new_tokens

    def check(self, tokens: Sequence[int]) -> None:
        """Check that the model has an embedding for each token.

        Raises:
            UnsupportedInputError: it has not.
        """
        check_tokens(self._folder, [tokens], self._words)

    def reply(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """Reply to prompts of token ids as text; see :meth:`speak` and :meth:`decode`."""
        return [self.decode(tokens) for tokens in self.speak(prompts)]

    def speak(self, prompts: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
        """Reply to prompts with token ids, up to and including the end of turn if it is reached.

        Raises:
            EvaluateError: a prompt leaves no room for the reply.
            UnsupportedInputError: the model has no embedding for a token.
        """
        check_tokens(self._folder, prompts, self._words)
        length = max(map(len, prompts))
        if length > self._longest:
            raise EvaluateError(
                f"{self._folder}: a request of {length} tokens leaves no room for the reply in "
                "the model's length; ask shorter requests or for fewer new tokens"
            )
        tokens, attended = align(prompts, [()] * len(prompts), self.model.device)
        tokens[attended == 0] = self.model.generation_config.pad_token_id
        with torch.inference_mode():
            spoken = self.model.generate(input_ids=tokens, attention_mask=attended)
        replies = []
        for row in spoken[:, length:].tolist():
            end = next((at for at, token in enumerate(row) if token in self.ends), len(row))
            replies.append(tuple(row[: end + 1]))
        return replies

    def decode(self, tokens: Sequence[int]) -> str:
        """Turn a reply into text without special tokens and outer white space."""
        said = tokens[:-1] if tokens[-1] in self.ends else tokens
        text: str = self.tokenizer.decode(said, skip_special_tokens=True)
        return text.strip()

    def _known(self, stated: Any) -> Iterator[int]:
        """Give those of a file's token ids that are tokens of the model."""
        many = stated if isinstance(stated, list | tuple) else [stated]
        return (one for one in many if type(one) is int and 0 <= one < self._words)


def load_speaker(
    checkpoint: Checkpoint, tokenizer: Any, device: torch.device, options: EvaluateOptions
) -> Speaker:
    """Load a checkpoint's folder as a causal language model, in the dtype of the options.

    Raises:
        UnsupportedInputError: transformers cannot load it, or some of its weights are missing.
    """
    model = load_causal(checkpoint, device, options)
    return Speaker(checkpoint.path, model, tokenizer, options.max_new_tokens)


def load_causal(checkpoint: Checkpoint, device: torch.device, options: EvaluateOptions) -> Any:
    """Load a checkpoint's folder as a causal language model, ready to be asked on a device.

    Raises:
        UnsupportedInputError: transformers cannot load it, or some of its weights are missing.
    """
    dtype = dtype_of(checkpoint, options)
    model = load_whole(AutoModelForCausalLM, checkpoint, "a causal language model", dtype=dtype)
    return model.to(device).eval()


def dtype_of(checkpoint: Checkpoint, options: EvaluateOptions) -> torch.dtype:
    """Return the dtype that a model is loaded in: that of most of its weights, or as stated."""
    stated = checkpoint.main_dtype if options.dtype == "auto" else options.dtype
    return _DTYPES.get(stated or "", torch.float32)


def load_whole(kind: Any, checkpoint: Checkpoint, what: str, **settings: Any) -> Any:
    """Load a checkpoint with one of transformers' auto classes; every weight comes from its files.

    transformers fills a weight at random if the files lack it or hold it in another shape. A weight
    that the model ties to another one may be missing.

    Raises:
        UnsupportedInputError: transformers cannot load it as ``what``, or would make up a weight.
    """
    model, info = load_model(
        kind, checkpoint, f"it as {what}", output_loading_info=True, **settings
    )
    made_up = sorted({*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])})
    if made_up:
        more = f" and {len(made_up) - _SHOWN} more" if len(made_up) > _SHOWN else ""
        raise UnsupportedInputError(
            f"{checkpoint.path}: as {what} it lacks the weights "
            f"{', '.join(made_up[:_SHOWN])}{more}, and transformers would fill them at random; "
            "complete the checkpoint"
        )
    return model


def stated_length(config: Any) -> int | None:
    """Return the most tokens that a model takes, or None if its config does not say."""
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    return longest if isinstance(longest, int) and longest > 0 else None
