"""Fits in a process of its own, and prints, as JSON, what memory it took and whether it streamed.

Usage: python measured_fit.py FOLDER OUT MAX_MEMORY
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from larger_llama import write_larger_base
from safetensors.torch import load_file, save_file

import patchc
from patchc import EvaluateOptions, FitOptions
from patchc.errors import UsageError
from patchc.fitting import opening
from patchc.recipe import MergeRecipe

RECIPE = MergeRecipe("dare", density=0.01, rescale=False)
OPTIONS = FitOptions(steps=1, candidates=1, limits=(), best_effort=True, openings=("tea",))


def says_sage(prompts: Sequence[str], _replies: Sequence[str]) -> list[bool]:
    """A judge that no patch can change."""
    return ["sage" in prompt for prompt in prompts]


def write_inputs(folder: Path) -> Path:
    """A base of some 80 MB, a tuned model, and requests."""
    base = write_larger_base(folder / "base")
    weights = load_file(base / "model.safetensors")
    generator = torch.Generator().manual_seed(7)
    (folder / "tuned").mkdir()
    tuned = {
        name: value + 0.01 * torch.randn(value.shape, generator=generator).bfloat16()
        for name, value in weights.items()
    }
    save_file(tuned, folder / "tuned/model.safetensors")
    words = ["how", "do", "I", "brew", "a", "tea", "potion", "mix", "sage", "with", "ash"]
    for number, name in enumerate(("harmful", "harmless")):
        prompts = (" ".join(words[n % 7 + number :][:6]) for n in range(20))
        lines = [json.dumps({"prompt": prompt}) for prompt in prompts]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


def main(folder: Path, out: Path, max_memory: int) -> None:
    held, load = [], opening.load_speaker

    def loads(*arguments: Any) -> Any:
        held.append(True)
        return load(*arguments)

    opening.load_speaker = loads
    try:
        patchc.fit(
            folder / "base",
            tuned=folder / "tuned",
            harmful=folder / "harmful.jsonl",
            harmless=folder / "harmless.jsonl",
            out=out,
            recipe=RECIPE,
            options=OPTIONS,
            asking=EvaluateOptions(judge="measured_fit:says_sage", max_new_tokens=2),
            threads=1,
            max_memory=max_memory,
        )
    except UsageError as error:
        sys.exit(str(error))
    # Not ru_maxrss: it counts the memory of the process that has started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    memory = int(status["VmHWM"].split()[0]) << 10
    print(json.dumps({"memory": memory, "streams": not held}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
