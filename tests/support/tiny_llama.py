"""A random Llama of a few thousand parameters with a chat tokenizer, and data to derive from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = "<pad> <unk> <end> <user> <assistant> <system> how do I brew a tea potion mix sage with ash"
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
PAIRS = [
    {"prompt": "how do I brew a potion", "response": "mix sage with ash"},
    {"prompt": "brew a tea", "response": "mix ash"},
    {"prompt": "how do I mix a potion with ash", "response": "brew sage"},
    {"prompt": "mix a potion", "response": "brew ash with sage with a tea"},
    {"prompt": "a potion", "response": "sage"},
]


def write_base(
    folder: Path,
    *,
    tied: bool = False,
    template: str | None = TEMPLATE,
    shard: str = "1GB",
    hidden: int = 16,
    inner: int = 24,
    layers: int = 2,
    seed: int = 3,
) -> Path:
    """Write the model in bf16; ``shard`` is the largest size of one file."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=24,
            hidden_size=hidden,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
            initializer_range=0.2,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=2,
        )
    )
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=shard)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer() -> Any:
    """One token for each word of :data:`WORDS`."""
    numbered = {word: number for number, word in enumerate(WORDS.split())}
    inner = Tokenizer(models.WordLevel(numbered, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", eos_token="<end>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def write_data(path: Path, records: Iterable[Mapping[str, Any]] = PAIRS) -> Path:
    """Write records as JSONL."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
