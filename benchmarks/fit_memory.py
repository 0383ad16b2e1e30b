"""Peak memory of `patchc fit`, predicted and measured, with the model in memory and streamed.

python benchmarks/fit_memory.py    # on SmolLM2-135M-Instruct, in a few minutes

Each fit runs a few steps on entries of two components in a process of its own: with all the memory
that it wants, and within the least that it accepts, which is what it predicts that it takes.
Medians of three runs each: what the allocator keeps of freed blocks differs from run to run.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import smollm2
import torch
from safetensors.torch import load_file, save_file

import patchc
from patchc import EvaluateOptions, FitOptions
from patchc.errors import UnfixedError
from patchc.recipe import Recipe
from patchc.selection.candidates import is_decoder_linear

BATCH = 16
WORDS = 12
RETAIN = (0.05, 0.2)
RUNS = 3


def is_even(_prompts: list[str], replies: list[str]) -> list[bool]:
    """A judge that divides the replies of a model that was never taught to refuse."""
    return [len(reply) % 2 == 0 for reply in replies]


def fit(folder: str, retain: float, budget: int) -> None:
    """A few steps of a fit of two components within a budget; none if it is 0."""
    work = Path(folder)
    out = work / f"fix-{retain}.patchc"
    for earlier in (out, out.with_suffix(".toml"), out.with_suffix(".fit.jsonl")):
        earlier.unlink(missing_ok=True)
    recipe = Recipe(retain=retain, top_se=0.75 * retain, top_osm=0.75 * retain, alpha=1, beta=1)
    start = time.perf_counter()
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
            max_memory=budget or None,
        )
    print(json.dumps({"peak": _peak(), "seconds": time.perf_counter() - start}))


def main() -> None:
    """Write the inputs, run the fits, and print a table."""
    with tempfile.TemporaryDirectory() as scratch:
        _write_inputs(Path(scratch))
        print("| retained | predicted, MB | measured, MB | seconds |\n|---|---|---|---|")
        for retain in RETAIN:
            for bounded in (False, True):
                budget, peak, seconds = _run(scratch, retain, bounded)
                told = f"{budget / 1e6:.0f}" if bounded else "any"
                print(f"| {retain:.0%} of each | {told} | {peak / 1e6:.0f} | {seconds:.0f} |")


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


def _run(scratch: str, retain: float, bounded: bool) -> list[float]:
    """The medians of the budget, the peak in bytes, and the seconds."""
    found = []
    for _ in range(RUNS):
        budget = 1 if bounded else 0
        while (done := _start(scratch, retain, budget)).returncode:
            least = re.search(r"at least ([\d,]+) bytes", done.stderr)
            assert least, done.stderr
            budget = int(least[1].replace(",", ""))
        told = json.loads(done.stdout.splitlines()[-1])
        found.append((budget, told["peak"], told["seconds"]))
    return [statistics.median(each) for each in zip(*found, strict=True)]


def _start(scratch: str, retain: float, budget: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, __file__, scratch, str(retain), str(budget)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _peak() -> int:
    # Not getrusage, whose figure begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return 1024 * next(
        int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")
    )


if __name__ == "__main__":
    if len(sys.argv) == 4:
        fit(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
