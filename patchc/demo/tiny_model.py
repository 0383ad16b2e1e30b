"""The demo's chat model: a small Llama with a word-level tokenizer, trained on the spot."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from patchc.demo.corpus import Lesson, lesson, vocabulary
from patchc.derivation.examples import Example, mean_loss, pad
from patchc.progress import Progress, ProgressEvent

_SPECIAL = ("<pad>", "<unk>", "<end>", "<user>", "<assistant>")
_CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} <end> "
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
_STEPS = 650
_WARM_UP = 30
_BATCH = 32
_LEARNING_RATE = 3e-3


def train_base(folder: Path, seed: int, progress: Progress) -> None:
    """Train the base and write it to ``folder`` in bf16, the usual dtype of published models.

    It is trained with AdamW, a warm-up and a cosine decay, on the responses alone. Call it inside
    :func:`patchc.derivation.session.reproducible`: the initial weights come from torch's generator,
    the lessons from ``seed``.
    """
    tokenizer = make_tokenizer()
    model = LlamaForCausalLM(_config(len(tokenizer))).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate)
    rng = random.Random(seed)
    for step in range(1, _STEPS + 1):
        examples = [encode_lesson(tokenizer, lesson(rng)) for _ in range(_BATCH)]
        loss = mean_loss(model, pad(examples, torch.device("cpu")))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        detail = f"loss {loss.item():.3f}"
        progress(ProgressEvent("train the base", step, _STEPS, "steps", detail))
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_tokenizer() -> Any:
    """Make a tokenizer with one token per word of the demo's world, and a chat template."""
    words = (*_SPECIAL, *vocabulary())
    numbered = {word: number for number, word in enumerate(words)}
    inner = Tokenizer(models.WordLevel(numbered, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<end>",
        additional_special_tokens=["<user>", "<assistant>"],
        padding_side="left",
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def encode_lesson(tokenizer: Any, taught: Lesson) -> Example:
    """Encode a lesson; the words already started count as prompt, so no loss falls on them."""
    turn = [{"role": "user", "content": taught.prompt}]
    prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    return Example(
        tuple(tokenizer.encode(f"{prompt} {taught.started}")),
        tuple(tokenizer.encode(f"{taught.response} <end>")),
    )


def _config(words: int) -> Any:
    return LlamaConfig(
        vocab_size=words,
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=2,
        attn_implementation="eager",
    )


def _rate(step: int) -> float:
    decay = 0.5 * (1 + math.cos(math.pi * step / _STEPS))
    return min(1.0, (step + 1) / _WARM_UP) * (0.95 * decay + 0.05)
