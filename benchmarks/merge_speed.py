"""Merges by patchc beside mergekit's on the same inputs: time a parameter and peak memory.

    python benchmarks/merge_speed.py --mergekit /path/to/mergekit-yaml

A Llama base in bf16 and two tuned models in bf16, with few layers and with more; the slope between
the two sizes is the time a parameter takes, what is left at size 0 the start-up. mergekit lives in
an environment of its own, computes in fp32 and writes the merged model; patchc writes a patch,
with the digests of base and result, and is also timed with the `apply` that makes the model of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from launch import Measured, measure, patchc
from safetensors.torch import save_file

HIDDEN, INNER, VOCABULARY = 1024, 2816, 4096
METHODS = {"dare_linear": "dare", "ties": "ties"}
DENSITY = 0.2


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
    """A base and two tuned models; returns the number of parameters."""
    torch.manual_seed(layers)
    base = {name: torch.randn(shape).bfloat16() for name, shape in shapes(layers).items()}
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
        tensors = base
        if name != "base":
            tensors = {k: (v + 0.02 * torch.randn(v.shape)).bfloat16() for k, v in base.items()}
        (folder / name).mkdir(parents=True)
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


def best_of(repeats: int, run: Callable[[], Measured], clean: Callable[[], None]) -> Measured:
    """The fastest of some runs after one that warms up."""
    found = []
    for _ in range(repeats + 1):
        clean()
        found.append(run())
    return min(found[1:], key=lambda one: one.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mergekit", type=Path, required=True)
    parser.add_argument("--layers", type=int, nargs=2, default=(2, 26))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    options = parser.parse_args()
    rows: dict[str, list[tuple[int, Measured]]] = {}
    for layers in options.layers:
        with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
            folder = Path(scratch)
            parameters = write_models(folder, layers)

            def clean(folder: Path = folder) -> None:
                (folder / "merge.patchc").unlink(missing_ok=True)
                for name in ("merged", "applied"):
                    shutil.rmtree(folder / name, ignore_errors=True)

            for method, recipe in METHODS.items():
                commands = {
                    f"mergekit {method}": mergekit_command(options.mergekit, folder, method),
                    f"patchc build, {recipe}": build_command(folder, recipe),
                }
                for name, command in commands.items():
                    taken = best_of(options.repeats, lambda c=command: measure(c), clean)
                    rows.setdefault(name, []).append((parameters, taken))
                apply = patchc(
                    "apply", folder / "merge.patchc", folder / "base", "-o", folder / "applied"
                )
                taken = measure(apply)
                rows.setdefault(f"patchc apply, {recipe}", []).append((parameters, taken))
                clean()
    print(f"{os.cpu_count()} cores; load averages {os.getloadavg()}")
    print("| command | M parameters/s | start-up, s | CPU, ns a parameter | peak, MB |")
    print("|---|---|---|---|---|")
    for name, ((few, small), (many, large)) in rows.items():
        slope = (large.seconds - small.seconds) / (many - few)
        cpu = (large.cpu_seconds - small.cpu_seconds) / (many - few)
        start = small.seconds - slope * few
        peak = large.peak_bytes / 1e6
        print(f"| {name} | {1e-6 / slope:.1f} | {start:.1f} | {1e9 * cpu:.1f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
