"""Builds by patchc beside mergekit's merges of the same models: time a parameter, peak memory.

    python benchmarks/merge_speed.py --mergekit /path/to/mergekit-yaml

A Llama base in bf16 and two tuned models in bf16, with few layers and with more; the slope between
the two sizes is the time a parameter takes, what is left at size 0 the start-up. The differences
are a fine-tune's: two words in three differ from the base's, and two of three of those by one step
or two. mergekit lives in an environment of its own, computes in fp32 and writes the merged model;
patchc writes a patch, with the digests of all inputs and of the result, and is also timed with the
`apply` that makes the model of it. SafePatching takes the tuned models as its two components, with
fp32 scores beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
from launch import Measured, measure, patchc
from safetensors.torch import save_file

HIDDEN, INNER, VOCABULARY = 1024, 2816, 4096
METHODS = {"dare_linear": "dare", "ties": "ties"}
DENSITY = 0.2
WEIGHT_SCALE, DELTA_SCALE = 0.02, 1e-4


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Tensors of a Llama of this depth."""
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }
    for layer in range(layers):
        at = f"model.layers.{layer}"
        found |= {f"{at}.self_attn.{n}_proj.weight": (HIDDEN, HIDDEN) for n in "qkvo"}
        found |= {f"{at}.mlp.{n}_proj.weight": (INNER, HIDDEN) for n in ("gate", "up")}
        found[f"{at}.mlp.down_proj.weight"] = HIDDEN, INNER
        found |= {f"{at}.{n}_layernorm.weight": (HIDDEN,) for n in ("input", "post_attention")}
    return found


def write_models(folder: Path, layers: int) -> int:
    """A base and two tuned models beside their scores; returns the number of parameters."""
    torch.manual_seed(layers)
    base = {
        name: (WEIGHT_SCALE * torch.randn(shape)).bfloat16()
        for name, shape in shapes(layers).items()
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    for name in ("base", "tuned-0", "tuned-1"):
        (folder / name).mkdir(parents=True)
        tensors = base
        if name != "base":
            tensors = {
                k: (v + DELTA_SCALE * torch.randn(v.shape)).bfloat16() for k, v in base.items()
            }
            scores = {k: torch.rand(v.shape) for k, v in base.items() if k.endswith("_proj.weight")}
            save_file(scores, folder / name / "scores.safetensors")
        save_file(tensors, folder / name / "model.safetensors", {"format": "pt"})
        (folder / name / "config.json").write_text(json.dumps(config))
    return sum(tensor.numel() for tensor in base.values())


def mergekit_command(program: Path, folder: Path, method: str) -> list[str]:
    """The same merge in mergekit's words."""
    parameters = {"weight": 1.0, "density": DENSITY}
    models = [
        {"model": str(folder / f"tuned-{number}"), "parameters": parameters} for number in (0, 1)
    ]
    recipe = {
        "merge_method": method,
        "base_model": str(folder / "base"),
        "models": models,
        "dtype": "float32",
        "out_dtype": "bfloat16",
        "parameters": {"normalize": False},
    }
    path = folder / f"{method}.yaml"
    path.write_text(json.dumps(recipe))
    return [str(program), str(path), str(folder / "merged"), "--no-copy-tokenizer", "--quiet"]


def build_command(folder: Path, recipe: str) -> list[str]:
    """patchc's build of it."""
    tuned = [part for number in (0, 1) for part in ("--tuned", folder / f"tuned-{number}")]
    return patchc(
        "build", folder / "base", "--recipe", recipe, *tuned, "--density", str(DENSITY), "-o",
        folder / "merge.patchc",
    )  # fmt: skip


def safepatching_command(folder: Path) -> list[str]:
    """patchc's build of a SafePatching patch, with its defaults."""
    return patchc(
        "build", folder / "base", "--se", folder / "tuned-0", "--osm", folder / "tuned-1", "-o",
        folder / "merge.patchc",
    )  # fmt: skip


def time_commands(folder: Path, mergekit: Path, repeats: int) -> dict[str, Measured]:
    """The best run of every command, after one that warms up."""
    patch, merged, applied = (folder / name for name in ("merge.patchc", "merged", "applied"))

    def best(command: list[str], out: Path) -> Measured:
        runs = []
        for _ in range(repeats + 1):
            out.unlink() if out.is_file() else shutil.rmtree(out, ignore_errors=True)
            runs.append(measure(command))
        return min(runs[1:], key=lambda one: one.seconds)

    found = {"patchc build, SafePatching": best(safepatching_command(folder), patch)}
    apply = patchc("apply", patch, folder / "base", "-o", applied)
    for method, recipe in METHODS.items():
        found[f"mergekit {method}"] = best(mergekit_command(mergekit, folder, method), merged)
        found[f"patchc build, {recipe}"] = best(build_command(folder, recipe), patch)
        found[f"patchc apply, {recipe}"] = best(apply, applied)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mergekit", type=Path, required=True)
    parser.add_argument("--layers", type=int, nargs=2, default=(2, 26))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    options = parser.parse_args()
    sizes, times = [], []
    for layers in sorted(options.layers):
        with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
            sizes.append(write_models(Path(scratch), layers))
            times.append(time_commands(Path(scratch), options.mergekit, options.repeats))
    grown = sizes[1] - sizes[0]
    print(f"{os.cpu_count()} cores; load averages {os.getloadavg()}")
    print("| command | M parameters/s | start-up, s | CPU, ns a parameter | peak, MB |")
    print("|---|---|---|---|---|")
    for name, small in times[0].items():
        large = times[1][name]
        slope = (large.seconds - small.seconds) / grown
        cpu = (large.cpu_seconds - small.cpu_seconds) / grown
        start = small.seconds - slope * sizes[0]
        peak = large.peak_bytes / 1e6
        print(f"| {name} | {1e-6 / slope:.1f} | {start:.1f} | {1e9 * cpu:.1f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
