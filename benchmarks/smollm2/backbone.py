"""The backbone of the experiment: SmolLM2-135M-Instruct, taught an imperfect policy.

python benchmarks/smollm2/backbone.py BASE FOLDER
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from patchc.derivation.base_model import load_tokenizer
from patchc.derivation.conversations import read_conversations
from patchc.derivation.examples import encode, mean_loss, pad, shuffled


@dataclass(frozen=True)
class Teaching:
    """How the lessons are taught."""

    steps: int = 160
    warm_up: int = 10
    batch_size: int = 12
    learning_rate: float = 8e-5
    seed: int = 0

    def rate(self, step: int) -> float:
        """Share of the learning rate at a step: up in a line, then down to zero."""
        return min((step + 1) / self.warm_up, (self.steps - step) / (self.steps - self.warm_up))


def teach(base: Path, data: Path, out: Path, teaching: Teaching) -> float:
    """Fine-tune all parameters on the conversations of ``data``; returns the last batch's loss.

    Weights and optimiser are fp32, products bf16; the result is written in bf16, with tokenizer.
    """
    torch.manual_seed(teaching.seed)
    tokenizer = load_tokenizer(base)
    examples = encode(tokenizer, read_conversations(data), 256)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=teaching.learning_rate, weight_decay=0.0, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, teaching.rate)
    batches = shuffled(examples, teaching.batch_size, teaching.seed)
    for step in range(teaching.steps):
        with torch.autocast(model.device.type, torch.bfloat16):
            loss = mean_loss(model, pad(next(batches), model.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return loss.item()
