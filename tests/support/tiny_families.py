"""Random models of several families, each of a few thousand parameters, with a chat tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_llama import make_tokenizer
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    PhiConfig,
    Qwen2Config,
)

_SIZES = {
    "vocab_size": 24,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
_TOKENS = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 2}
_GPT2 = {"vocab_size": 24, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64}
_HEADS = {**_SIZES, "head_dim": 8}

CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**_SIZES, **_TOKENS, tie_word_embeddings=False),
    "llama, tied": LlamaConfig(**_SIZES, **_TOKENS, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**_SIZES, **_TOKENS, tie_word_embeddings=False),
    "qwen2, tied": Qwen2Config(**_SIZES, **_TOKENS, tie_word_embeddings=True),
    "gemma": GemmaConfig(**_HEADS, **_TOKENS),
    "gemma2": Gemma2Config(**_HEADS, **_TOKENS, sliding_window=8),
    "granite": GraniteConfig(**_SIZES, **_TOKENS, logits_scaling=3.0, residual_multiplier=0.5),
    "cohere": CohereConfig(**_SIZES, **_TOKENS),
    "phi": PhiConfig(**_SIZES, **_TOKENS),
    "gpt2": GPT2Config(**_GPT2, **_TOKENS),
}
FAMILIES = tuple(CONFIGS)


def write_family(folder: Path, family: str, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write a model whose parameters, biases and norms too, are all random."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(CONFIGS[family])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    model.to(dtype).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
