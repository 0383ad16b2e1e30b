"""Merges by patchc beside mergekit's, entry by entry, on a small random Llama.

    python benchmarks/mergekit_agreement.py --mergekit /path/to/mergekit-yaml

mergekit lives in an environment of its own; this script runs in patchc's, with torch and
transformers. Two pairs of tuned models: "smooth", fp32 noise on a bf16 base, where hardly two |τ|
are equal and nothing cancels; "coarse", whose τ take seven values, so that cuts fall into runs of
equal |τ| and sums cancel exactly. One base entry in 101 is −0. mergekit computes in fp32 and writes
bf16 unless a row says otherwise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import patchc
from patchc.recipe import MergeRecipe
from patchc.verbs.build_merge import build_merge

Model = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """The same merge in both programs' words."""

    title: str
    pair: str
    recipe: MergeRecipe
    method: str
    parameters: dict[str, Any] = field(default_factory=dict)
    weight: tuple[float, float] = (1.0, 1.0)
    dtype: str = "float32"


CASES = (
    Case("task arithmetic", "smooth", MergeRecipe("task-arithmetic"), "task_arithmetic"),
    Case("task arithmetic", "coarse", MergeRecipe("task-arithmetic"), "task_arithmetic"),
    Case(
        "task arithmetic, weights 0.3 0.7, λ 0.4",
        "smooth",
        MergeRecipe("task-arithmetic", weight=(0.3, 0.7), lambda_=0.4),
        "task_arithmetic",
        {"lambda": 0.4},
        (0.3, 0.7),
    ),
    Case(
        "task arithmetic, mergekit in bf16",
        "smooth",
        MergeRecipe("task-arithmetic"),
        "task_arithmetic",
        dtype="bfloat16",
    ),
    Case(
        "magnitude 0.2 (breadcrumbs, gamma 0)",
        "smooth",
        MergeRecipe("magnitude"),
        "breadcrumbs",
        {"density": 0.2, "gamma": 0.0},
    ),
    Case("ties 0.2", "smooth", MergeRecipe("ties"), "ties", {"density": 0.2}),
    Case(
        "ties 0.2, weights 0.3 0.7",
        "smooth",
        MergeRecipe("ties", weight=(0.3, 0.7)),
        "ties",
        {"density": 0.2},
        (0.3, 0.7),
    ),
    Case("ties 0.2", "coarse", MergeRecipe("ties"), "ties", {"density": 0.2}),
    Case("ties 1 (no trim)", "smooth", MergeRecipe("ties", density=1), "ties", {"density": 1.0}),
    Case("ties 1 (no trim)", "coarse", MergeRecipe("ties", density=1), "ties", {"density": 1.0}),
    Case(
        "ties 0.2, mergekit in bf16",
        "smooth",
        MergeRecipe("ties"),
        "ties",
        {"density": 0.2},
        dtype="bfloat16",
    ),
)


def write_models(folder: Path) -> None:
    """A base in bf16, and two tuned models in fp32 for each pair."""
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    for value in model.state_dict().values():
        value.view(-1)[::101] = -0.0
    model.save_pretrained(folder / "base")
    base = load_file(folder / "base" / "model.safetensors")
    for pair in ("smooth", "coarse"):
        for number in (0, 1):
            tuned = {name: _move(value.float(), pair) for name, value in base.items()}
            _save(folder / f"{pair}-{number}", tuned, folder / "base")
    exact = {name: value.float() for name, value in base.items()}
    _save(folder / "base-fp32", exact, folder / "base")


def _move(values: torch.Tensor, pair: str) -> torch.Tensor:
    if pair == "smooth":
        return values + 2e-3 * torch.randn(values.shape)
    return values + torch.randint(-3, 4, values.shape) * 2.0**-10


def _save(folder: Path, tensors: Model, config_of: Path) -> None:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((config_of / "config.json").read_text())
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps({**config, "dtype": dtype}))


def run_mergekit(
    program: Path, folder: Path, base: Path, tuned: list[Path], case: Case, out_dtype: str
) -> Model:
    """mergekit's merge, read back."""
    entries = [
        {"model": str(path), "parameters": {"weight": weight}}
        for path, weight in zip(tuned, case.weight, strict=False)
    ]
    shared = {k: v for k, v in case.parameters.items() if k in ("lambda", "rescale")}
    for entry in entries:
        entry["parameters"] |= {k: v for k, v in case.parameters.items() if k not in shared}
    config = {
        "merge_method": case.method,
        "base_model": str(base),
        "models": entries,
        "parameters": shared,
        "dtype": case.dtype,
        "out_dtype": out_dtype,
    }
    path, out = folder / "config.yml", folder / "mergekit-out"
    path.write_text(json.dumps(config))
    command = [program, path, out, "--no-copy-tokenizer", "--random-seed", "1", "--quiet"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(f"mergekit failed:\n{finished.stderr[-2000:]}")
    merged: Model = {}
    for shard in out.glob("*.safetensors"):
        merged |= load_file(shard)
    return merged


def run_patchc(folder: Path, base: Path, tuned: list[Path], recipe: MergeRecipe) -> Model:
    """patchc's merge, built, applied and read back."""
    patch, out = folder / "merge.patchc", folder / "patchc-out"
    build_merge(base, tuned=tuned, out=patch, recipe=recipe)
    patchc.apply(patch, base, out=out)
    return load_file(out / "model.safetensors")


def compare(ours: Model, theirs: Model, odd: dict[str, dict[str, torch.Tensor]]) -> str:
    """How many bf16 words differ, by how many units in the last place, and why.

    ``odd`` gives, by reason and tensor, the entries where the two programs' rules differ.
    """
    if set(ours) != set(theirs):
        raise SystemExit(f"tensors differ: {sorted(set(ours) ^ set(theirs))[:3]}")
    counts = dict.fromkeys(("differ", "sign of zero", *odd, "beyond 1 ulp", "unexplained"), 0)
    largest = 0
    for name, mine in ours.items():
        steps = (_ordered(mine) - _ordered(theirs[name])).abs()
        unexplained = (steps > 0) & (mine != theirs[name])
        counts["differ"] += int((steps > 0).sum())
        counts["sign of zero"] += int(((steps > 0) & ~unexplained).sum())
        counts["beyond 1 ulp"] += int((unexplained & (steps > 1)).sum())
        for reason, masks in odd.items():
            counts[reason] += int((unexplained & masks[name]).sum())
            unexplained &= ~masks[name]
        counts["unexplained"] += int(unexplained.sum())
        largest = max(largest, int(steps.max()))
    total = sum(tensor.numel() for tensor in ours.values())
    listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return f"of {total:,} entries: {listed}; largest {largest} ulp"


def find_odd(base: Model, tuned: list[Model], recipe: MergeRecipe) -> dict[str, Model]:
    """Entries of ties where the rules differ: equal |τ| at the cut, and sums that cancel."""
    odd: dict[str, Model] = {"at the cut": {}, "cancelled": {}}
    if recipe.method != "ties":
        return {}
    for name, value in base.items():
        at_cut = torch.zeros(value.shape, dtype=torch.bool)
        deltas = [model[name] - value.float() for model in tuned]
        keep = int(recipe.share * value.numel())
        for delta in deltas:
            ranked = delta.abs().flatten().sort(descending=True).values
            if keep < len(ranked) and ranked[keep - 1] == ranked[keep]:
                at_cut |= delta.abs() == ranked[keep]
        odd["at the cut"][name] = at_cut
        odd["cancelled"][name] = (sum(deltas) == 0) & (deltas[0] != 0)
    return odd


def _ordered(values: torch.Tensor) -> torch.Tensor:
    words = values.contiguous().view(torch.int16).long()
    return torch.where(words < 0, -32769 - words, words)


def compare_dare(program: Path, folder: Path) -> None:
    """DARE's rule: share kept and the factor of what is kept, tensor by tensor, in fp32."""
    base, tuned = folder / "base-fp32", [folder / "smooth-0"]
    origin, target = (load_file(path / "model.safetensors") for path in (base, tuned[0]))
    for density in (0.5, 0.1):
        case = Case("dare", "smooth", MergeRecipe("dare", density=density), "dare_linear")
        case.parameters["density"] = density
        with tempfile.TemporaryDirectory() as scratch:
            merged = {
                "mergekit": run_mergekit(program, Path(scratch), base, tuned, case, "float32"),
                "patchc": run_patchc(Path(scratch), base, tuned, case.recipe),
            }
        for who, model in merged.items():
            factors, shares = [], []
            for name, before in origin.items():
                delta = (target[name] - before).double()
                moved = (model[name] - before).double()
                kept = (moved != 0) & (delta.abs() > 1e-3)
                factors.append(float((moved[kept] / delta[kept]).median()))
                shares.append(float((moved != 0).double().mean()))
            print(
                f"dare {density}, {who:8}: kept {min(shares):.4f} … {max(shares):.4f}, factor "
                f"{min(factors):.4f} … {max(factors):.4f} over {len(factors)} tensors "
                f"(1/density is {1 / density:g})"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mergekit", type=Path, required=True, help="the mergekit-yaml program")
    program = parser.parse_args().mergekit
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        write_models(folder)
        for case in CASES:
            tuned = [folder / f"{case.pair}-{number}" for number in (0, 1)]
            base = folder / "base"
            with tempfile.TemporaryDirectory() as scratch:
                ours = run_patchc(Path(scratch), base, tuned, case.recipe)
                theirs = run_mergekit(program, Path(scratch), base, tuned, case, "bfloat16")
            models = [load_file(path / "model.safetensors") for path in (base, *tuned)]
            odd = find_odd(models[0], models[1:], case.recipe)
            print(f"{case.title}, {case.pair}: {compare(ours, theirs, odd)}", flush=True)
        compare_dare(program, folder)


if __name__ == "__main__":
    main()
