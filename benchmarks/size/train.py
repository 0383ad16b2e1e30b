"""Trains what the pairs are made of, with AdamW on fp32 masters; weights are kept in bf16."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from corpus import lessons
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

Weights = dict[str, Tensor]

WINDOW = 128
BATCH = 2
SCORED_BATCHES = 4
SMALL = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
"""The model that is trained from scratch; its vocabulary is SmolLM2's."""


@dataclass(frozen=True)
class Phase:
    """AdamW steps at a constant rate. ``sign`` −1 climbs; ``keep`` names steps to save as bf16."""

    rate: float
    steps: int
    seed: int
    sign: int = 1
    keep: tuple[int, ...] = ()


def pretrained(base: Path) -> Any:
    """The base model in fp32."""
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def untrained(base: Path) -> Any:
    """A small model with random weights, always the same ones."""
    torch.manual_seed(0)
    vocabulary = AutoModelForCausalLM.from_pretrained(base).config.vocab_size
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **SMALL))


def load_masters(model: Any, masters: Path) -> Any:
    """Put saved fp32 masters into a model."""
    stored = load_file(masters)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(stored[name])
    return model


def train(model: Any, base: Path, phase: Phase, folder: Path) -> None:
    """Take the steps of a phase; write ``step-N.safetensors`` in bf16 and ``masters.safetensors``.

    ``base`` has the tokenizer.
    """
    torch.manual_seed(phase.seed)
    batches = _batches(base, phase.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=phase.rate, weight_decay=0.0, fused=True)
    for step in range(1, phase.steps + 1):
        loss = _loss(model, next(batches))
        (phase.sign * loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step in phase.keep:
            save(weights(model, torch.bfloat16), folder / f"step-{step}.safetensors")
        if step % 10 == 0:
            print(f"  step {step}: loss {loss.item():.3f}", flush=True)
    save(weights(model), folder / "masters.safetensors")


def score(model: Any, base: Path, seed: int, out: Path) -> None:
    """Write the SNIP score |W ⊙ ∇L| of every parameter, summed over some batches."""
    batches = _batches(base, seed)
    for _ in range(SCORED_BATCHES):
        _loss(model, next(batches)).backward()
    save({name: (p * p.grad).abs() for name, p in model.named_parameters()}, out)


def weights(model: Any, dtype: torch.dtype = torch.float32) -> Weights:
    """The model's parameters, tied ones once."""
    return {name: value.to(dtype) for name, value in model.named_parameters()}


def convert(source: Path, out: Path, change: Callable[[str, Tensor], Weights]) -> None:
    """Write what ``change`` makes of each tensor of a file."""
    made: Weights = {}
    for name, value in load_file(source).items():
        made |= change(name, value)
    save(made, out)


def save(tensors: Weights, out: Path) -> None:
    """Write a safetensors file."""
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, out)


def _batches(base: Path, seed: int) -> Iterator[Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(base)
    text = "\n".join(" ".join(map(str, record.values())) for record in lessons(1000))
    tokens = torch.tensor(tokenizer.encode(text))
    places = random.Random(seed)
    while True:
        starts = [places.randrange(len(tokens) - WINDOW) for _ in range(BATCH)]
        yield torch.stack([tokens[start : start + WINDOW] for start in starts])


def _loss(model: Any, tokens: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return model(input_ids=tokens, labels=tokens).loss
