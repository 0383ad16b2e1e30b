"""Derives from random models of real shapes, and measures memory, scratch files and traffic.

    python benchmarks/derive_memory.py --shape 1.1b --max-memory 4GB

writes a random Llama in bf16, derives both directions from it with components that hold 1 % of the
entries, in a process of its own, and prints what was predicted beside what was measured. With
``--layers`` fewer than the shape's, the time of a whole model is extrapolated.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import shutil
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from figures import Figures
from safetensors.torch import save_file

from patchc.cli.options import parse_size

_WORDS = "<pad> <unk> <end> <user> <assistant> brew the potion of night with sage and ash slowly"
_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
_CONVERSATIONS, _PROMPT_WORDS, _RESPONSE_WORDS = 12, 24, 72


@dataclass(frozen=True)
class Shape:
    """A Llama without tied embeddings."""

    hidden: int
    layers: int
    intermediate: int
    vocabulary: int
    heads: int
    key_value_heads: int

    def tensors(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """The tensors of each file: one for each layer, one for the rest."""
        key_value = self.hidden // self.heads * self.key_value_heads
        layer = {
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (key_value, self.hidden),
            "self_attn.v_proj": (key_value, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
            "input_layernorm": (self.hidden,),
            "post_attention_layernorm": (self.hidden,),
        }
        files: dict[str, dict[str, tuple[int, ...]]] = {
            f"model-{number:05d}.safetensors": {
                f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()
            }
            for number in range(self.layers)
        }
        files["model-ends.safetensors"] = {
            "model.embed_tokens.weight": (self.vocabulary, self.hidden),
            "model.norm.weight": (self.hidden,),
            "lm_head.weight": (self.vocabulary, self.hidden),
        }
        return files

    def parameters(self) -> int:
        return sum(math.prod(s) for file in self.tensors().values() for s in file.values())


SHAPES = {
    "tiny": Shape(64, 4, 128, 512, 4, 2),
    "0.3b": Shape(1024, 12, 4096, 49152, 16, 4),
    "1.1b": Shape(2048, 22, 5632, 49152, 32, 4),
    "3b": Shape(3072, 28, 8192, 49152, 24, 24),
    "7b": Shape(4096, 32, 11008, 32000, 32, 32),
    "8b": Shape(4096, 32, 14336, 128256, 32, 8),
    "70b": Shape(8192, 80, 28672, 128256, 64, 8),
}


@dataclass
class Measured:
    """What a derivation took."""

    plan: dict[str, Any] = field(default_factory=dict)
    host_bytes: int = 0
    device_bytes: int = 0
    scratch_bytes: int = 0
    moved_bytes: int = 0
    output_bytes: int = 0
    step_seconds: list[float] = field(default_factory=list)
    seconds: float = 0.0


def write_model(folder: Path, shape: Shape) -> Path:
    """Write a random model in bf16, with a tokenizer of a few words."""
    write_settings(folder, shape)
    pool = (torch.randn(1 << 22, generator=torch.Generator().manual_seed(1)) / 50).bfloat16()
    weight_map = {}
    for file, tensors in shape.tensors().items():
        content = {}
        for number, (name, size) in enumerate(tensors.items()):
            count = math.prod(size)
            values = torch.ones(size) if len(size) == 1 else _tiled(pool, count, number).view(size)
            content[name] = values.bfloat16()
            weight_map[name] = file
        save_file(content, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_settings(folder: Path, shape: Shape) -> None:
    """Write what belongs to a model beside its weights: configuration and tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    folder.mkdir(parents=True)
    LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)
    numbered = {word: number for number, word in enumerate(_WORDS.split())}
    inner = Tokenizer(models.WordLevel(numbered, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", eos_token="<end>"
    )
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)


def write_data(path: Path) -> Path:
    """Write conversations of about a hundred tokens."""
    words = _WORDS.split()[5:]
    lines = []
    for number in range(_CONVERSATIONS):
        text = [words[(number + at * (1 + number % 3)) % len(words)] for at in range(96)]
        prompt, response = text[:_PROMPT_WORDS], text[-_RESPONSE_WORDS:]
        lines.append(json.dumps({"prompt": " ".join(prompt), "response": " ".join(response)}))
    path.write_text("\n".join(lines) + "\n")
    return path


def measure(base: Path, data: Path, folder: Path, settings: argparse.Namespace) -> Measured:
    """Derive in a process of its own, whose peak memory is that of the derivation."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_derive, (base, data, folder, settings))


def _derive(base: Path, data: Path, folder: Path, settings: argparse.Namespace) -> Measured:
    import patchc
    from patchc.derivation.derive_options import TuneOptions
    from patchc.json_values import json_values

    found, start = Measured(), time.perf_counter()
    steps: list[float] = []
    moved: list[int] = []

    def note(event: patchc.ProgressEvent) -> None:
        if event.stage.startswith("tune"):
            steps.append(time.perf_counter())
            moved.append(_moved())
            held = (f.stat().st_blocks * 512 for f in settings.scratch.rglob("*") if f.is_file())
            found.scratch_bytes = max(found.scratch_bytes, sum(held))
            print(f"  {steps[-1] - start:6.0f} s  {event.stage} {event.done}", flush=True)

    tuning = TuneOptions(learning_rate=1e-5, steps=settings.steps, batch_size=4)
    options = patchc.DeriveOptions(
        se=tuning,
        osm=tuning,
        directions=settings.directions,
        optimizer=settings.optimizer,
        precision=settings.precision,
        device=settings.device,
        retain=settings.retain,
        score_samples=settings.score_samples,
    )
    report = patchc.derive(
        base,
        data,
        folder / "out",
        options=options,
        max_memory=settings.max_memory,
        max_device_memory=settings.max_device_memory,
        scratch=settings.scratch,
        progress=note,
    )
    found.plan = json_values(report.plan)
    found.seconds = time.perf_counter() - start
    found.host_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if settings.device == "cuda":
        found.device_bytes = torch.cuda.max_memory_reserved()
    found.output_bytes = sum(
        file.stat().st_size for file in (folder / "out").rglob("*.safetensors")
    )
    # From one step's loss to the next one's; the last steps of a direction end elsewhere.
    count = settings.steps
    pairs = [n for n in range(1, len(steps)) if n % count]
    found.step_seconds = [steps[n] - steps[n - 1] for n in pairs]
    found.moved_bytes = max((moved[n] - moved[n - 1] for n in pairs), default=0)
    return found


def report(name: str, shape: Shape, whole: int, found: Measured, figures: Figures) -> None:
    """Print what was predicted and measured, and add it to the figures."""
    plan, device = found.plan, found.device_bytes
    rows = [
        ("host", plan["memory_bytes"], found.host_bytes),
        ("scratch files", plan["scratch_bytes"], found.scratch_bytes),
        ("output", plan["output_bytes"], found.output_bytes),
        ("moved in a step", plan["step_bytes"], found.moved_bytes),
    ]
    if plan["device_bytes"]:
        rows.insert(1, ("device", plan["device_bytes"], device))
    print(f"{name}: {shape.parameters() / 1e9:.2f} billion parameters, {plan['optimizer']}")
    for label, predicted, measured in rows:
        print(f"  {label:16} {predicted / 1e9:8.2f} GB predicted {measured / 1e9:8.2f} GB measured")
        figures.add(
            "memory",
            label,
            predicted_gigabytes=predicted / 1e9,
            measured_gigabytes=measured / 1e9,
        )
    seconds = min(found.step_seconds, default=math.nan)
    rate = found.moved_bytes / seconds / 1e9
    print(f"  {seconds:.1f} s a step, {rate:.2f} GB/s moved; {found.seconds:.0f} s in all")
    figures.add("time", "step", seconds=seconds, gigabytes_a_second=rate, total=found.seconds)
    if whole != shape.layers:
        longer = seconds * replace(shape, layers=whole).parameters() / shape.parameters()
        print(f"  extrapolated to {whole} layers by parameters: {longer:.1f} s a step")
        figures.add("time", f"step, extrapolated to {whole} layers", seconds=longer)


def _moved() -> int:
    """Bytes that this process has read from files and written to them, cached or not."""
    lines = Path("/proc/self/io").read_text().splitlines()
    counts = dict(line.split(": ") for line in lines)
    return int(counts["rchar"]) + int(counts["wchar"])


def _tiled(pool: torch.Tensor, count: int, shift: int) -> torch.Tensor:
    return pool.roll(shift).repeat(-(-count // len(pool)))[:count].clone()


def main() -> None:
    """Run one shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="1.1b")
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--max-memory", type=parse_size)
    parser.add_argument("--max-device-memory", type=parse_size)
    parser.add_argument("--optimizer", choices=("auto", "adamw", "adamw8bit"), default="auto")
    parser.add_argument("--precision", choices=("float32", "bfloat16"))
    parser.add_argument("--directions", nargs="+", choices=("se", "osm"), default=["se", "osm"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--score-samples", type=int, default=8)
    parser.add_argument("--retain", type=float, default=0.01)
    parser.add_argument("--folder", type=Path, help="for everything that is written")
    parser.add_argument("--scratch", type=Path, help="for scratch files")
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()
    settings.directions = tuple(settings.directions)
    if settings.precision is None:
        settings.precision = "bfloat16" if settings.device == "cuda" else "float32"
    shape = SHAPES[settings.shape]
    whole = shape.layers
    shape = replace(shape, layers=settings.layers or whole)
    folder = Path(tempfile.mkdtemp(prefix="derive-memory-", dir=settings.folder))
    settings.scratch = settings.scratch or folder / "scratch"
    settings.scratch.mkdir(parents=True, exist_ok=True)
    name = torch.cuda.get_device_name() if settings.device == "cuda" else "cpu"
    try:
        base, data = write_model(folder / "base", shape), write_data(folder / "data.jsonl")
        found = measure(base, data, folder, settings)
        report(settings.shape, shape, whole, found, Figures(settings.json, name))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
