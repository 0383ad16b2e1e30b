"""Peak memory of `patchc fit` beside its bound: model, gradients, entries, activations of a batch.

python benchmarks/fit_memory.py    # on SmolLM2-135M-Instruct, in a few minutes

Two processes: one loads the libraries and the model, and takes the gradients of all linear layers
on one batch, which are the model, the gradients and the activations; the other fits for a few
steps on prompts of the same length. The second may need 12 bytes more for each retained entry and
component. Medians of three runs each: what the allocator keeps of freed blocks differs from run to
run.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import smollm2
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import patchc
from patchc import EvaluateOptions, FitOptions
from patchc.checkpoint import open_checkpoint
from patchc.derivation.margin import Openings, refusal_margin
from patchc.errors import UnfixedError
from patchc.recipe import Recipe
from patchc.selection.candidates import is_decoder_linear

BATCH = 16
LENGTH = 48
"""Tokens of a prompt; the template takes all but the words and a few more."""
WORDS = 12
RETAIN = (0.05, 0.2)
RUNS = 3


def is_even(_prompts: list[str], replies: list[str]) -> list[bool]:
    """A judge that divides the replies of a model that was never taught to refuse."""
    return [len(reply) % 2 == 0 for reply in replies]


def gradients() -> None:
    """One batch forwards and backwards, with the gradients of all linear layers."""
    import_module("patchc.fitting.run")
    model = AutoModelForCausalLM.from_pretrained(smollm2.base_model(), dtype=torch.bfloat16)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_decoder_linear(name, tuple(parameter.shape)))
    prompts = [list(range(5, 5 + LENGTH))] * BATCH
    refusal_margin(model, prompts, Openings.of([(7,)])).mean().backward()
    _tell(0)


def fit(folder: str, retain: float) -> None:
    """A few steps of a fit of two components."""
    work = Path(folder)
    out = work / f"fix-{retain}.patchc"
    for earlier in (out, out.with_suffix(".toml"), out.with_suffix(".fit.jsonl")):
        earlier.unlink(missing_ok=True)
    recipe = Recipe(retain=retain, top_se=0.75 * retain, top_osm=0.75 * retain, alpha=1, beta=1)
    # These deltas are noise: that no point is better is no matter here.
    with suppress(UnfixedError):
        patchc.fit(
            smollm2.base_model(),
            se=work / "se",
            osm=work / "osm",
            harmful=work / "harmful.jsonl",
            harmless=work / "harmless.jsonl",
            out=out,
            recipe=recipe,
            options=FitOptions(
                steps=2, batch_size=BATCH, candidates=1, best_effort=True, openings=("The",)
            ),
            asking=EvaluateOptions(judge="fit_memory:is_even", max_new_tokens=4, batch_size=16),
        )
    with open_checkpoint(work / "se", stem="scores") as scores:
        _tell(sum(tensor.words for tensor in scores.tensors.values()))


def main() -> None:
    """Write the inputs, run both processes, and print a table."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        _write_inputs(work)
        floor, _ = _run("gradients")
        print("| retained | bound, MB | peak, MB |\n|---|---|---|")
        print(f"| nothing: model, gradients and activations alone | | {floor / 1e6:.0f} |")
        for retain in RETAIN:
            peak, words = _run("fit", scratch, str(retain))
            bound = floor + 12 * 2 * retain * words
            print(f"| {retain:.0%} of each | {bound / 1e6:.0f} | {peak / 1e6:.0f} |")


def _write_inputs(work: Path) -> None:
    weights = load_file(smollm2.base_model() / "model.safetensors")
    for seed, name in enumerate(("se", "osm")):
        generator = torch.Generator().manual_seed(seed)
        noise = {
            key: 1e-4 * torch.randn(value.shape, generator=generator)
            for key, value in weights.items()
        }
        (work / name).mkdir()
        tuned = {key: value.float() + noise[key] for key, value in weights.items()}
        save_file(tuned, work / name / "model.safetensors")
        scores = {
            key: value.abs()
            for key, value in noise.items()
            if is_decoder_linear(key, tuple(value.shape))
        }
        save_file(scores, work / name / "scores.safetensors")
    filler = " ".join(["word"] * WORDS)
    for name in ("harmful", "harmless"):
        lines = [json.dumps({"prompt": f"{name} {number} {filler}?"}) for number in range(32)]
        (work / f"{name}.jsonl").write_text("\n".join(lines))


def _run(*arguments: str) -> tuple[float, int]:
    """The median peak in bytes, and how many words the scores have."""
    command = [sys.executable, __file__, *arguments]
    found: list[dict[str, int]] = []
    for _ in range(RUNS):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return statistics.median(one["peak"] for one in found), found[0]["words"]


def _tell(words: int) -> None:
    # Not getrusage, whose figure begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"peak": 1024 * peak, "words": words}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["gradients"]:
        gradients()
    elif sys.argv[1:2] == ["fit"]:
        fit(sys.argv[2], float(sys.argv[3]))
    else:
        main()
