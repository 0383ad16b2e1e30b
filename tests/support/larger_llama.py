"""A random Llama of some 40 million parameters, of which more is computed than Python takes."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_llama import make_tokenizer, write_data
from transformers import LlamaConfig, LlamaForCausalLM

_WORDS = ["brew", "a", "tea", "potion", "mix", "sage", "with", "ash"]


def write_larger_base(folder: Path) -> Path:
    """Write the model in bf16, without tied embeddings."""
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=10,
        num_attention_heads=8,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=2,
    )
    torch.manual_seed(1)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def write_longer_data(path: Path) -> Path:
    """Write conversations of about 60 tokens."""
    texts = [" ".join((_WORDS * 8)[start : start + 27]) for start in range(8)]
    return write_data(path, [{"prompt": text, "response": text} for text in texts])
