"""The pairs of models that are measured, each made once and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import smollm2
import torch
from blake3 import blake3
from stages import Stages
from torch import Tensor
from train import Phase, Weights, convert, load_masters, pretrained, save, score, train, untrained

import patchc
from patchc.compiler.steps import Codec

FINE_TUNE = Phase(rate=4e-5, steps=100, seed=1, keep=(100,))
SCRATCH = Phase(rate=1e-3, steps=150, seed=2, keep=(150,))
REINFORCE = {
    "rl-1e-6": Phase(rate=1e-6, steps=16, seed=3, keep=(1, 15, 16)),
    "rl-3e-6": Phase(rate=3e-6, steps=16, seed=3, keep=(1, 15, 16)),
}
KEPT = ", masters kept"
"""Whether the fp32 masters of the fine-tune go on, or the trainer loads its bf16 file."""

SPANS = {"": ((1, 1), (1, 16)), KEPT: ((1, 1), (1, 16), (16, 16))}
"""First and last steps of an update, for both kinds of masters. The 16th step alone is what a job
that runs on sends."""

BASE = f"step-{FINE_TUNE.steps}.safetensors"
"""The file of the fine-tuned model in bf16."""

COMPONENTS = {
    "se": Phase(rate=1e-5, steps=8, seed=4, sign=-1),
    "osm": Phase(rate=1e-5, steps=8, seed=5),
}
DENSITIES = (0.001, 0.01, 0.05, 0.1, 0.3)
GAUSSIAN_WORDS = 1 << 25


@dataclass(frozen=True)
class Pair:
    """Two safetensors files. ``build`` writes the patch, where that is not a plain diff.

    ``small_steps`` are updates as reinforcement learning sends them.
    """

    name: str
    what: str
    base: Path
    tuned: Path
    build: Callable[[Path, Codec], object] | None = None
    small_steps: bool = False

    def make_patch(self, out: Path, codec: Codec) -> None:
        """Write the patch."""
        if self.build:
            self.build(out, codec)
        else:
            patchc.diff(self.base, self.tuned, out=out, codec=codec)


class Pairs:
    """Makes the pairs; a later run takes from ``work`` what has not changed."""

    def __init__(self, work: Path) -> None:
        self._stages = Stages(work)
        self._source = smollm2.base_model()

    def all(self) -> dict[str, Callable[[], Pair]]:
        """How to make each pair, by name."""
        made: dict[str, Callable[[], Pair]] = {}
        for name, (kept, spans) in product(REINFORCE, SPANS.items()):
            for first, last in spans:
                full = _span(name + kept, first, last)
                made[full] = self._bind(self._reinforced, full, name, kept, first, last)
        made["fine-tune, 100 steps"] = self._fine_tune
        made["from scratch"] = self._from_scratch
        made["SafePatching"] = self._safepatching
        made["fp32 masters"] = self._fp32
        made["fp16"] = self._fp16
        made["int8"] = self._int8
        for density in DENSITIES:
            made[f"Gaussian, {density:.1%}"] = self._bind(self._gaussian, density)
        return made

    @staticmethod
    def _bind(make: Callable[..., Pair], *arguments: object) -> Callable[[], Pair]:
        return lambda: make(*arguments)

    def _run(self, name: str, inputs: object, make: Callable[[Path], None]) -> Path:
        program = blake3(Path(__file__).with_name("train.py").read_bytes()).hexdigest()
        return self._stages.run(name, {"inputs": repr(inputs), "program": program}, make)

    def _base(self) -> Path:
        """The fine-tuned model that most pairs start from."""
        return self._run(
            "fine-tune",
            FINE_TUNE,
            lambda folder: train(pretrained(self._source), self._source, FINE_TUNE, folder),
        )

    def _masters(self, base: Path, kept: str = KEPT) -> object:
        return load_masters(
            pretrained(self._source), base / ("masters.safetensors" if kept else BASE)
        )

    def _continued(self, name: str, kept: str = KEPT) -> Path:
        base, phase = self._base(), REINFORCE[name]
        return self._run(
            name if kept else f"{name}-loaded",
            (FINE_TUNE, phase),
            lambda folder: train(self._masters(base, kept), self._source, phase, folder),
        )

    def _reinforced(self, full: str, name: str, kept: str, first: int, last: int) -> Pair:
        masters = "the fine-tune's own" if kept else "its bf16 file"
        continued = self._continued(name, kept)
        return Pair(
            full,
            f"{_span('AdamW', first, last)}, at {name.removeprefix('rl-')}; masters from {masters}",
            continued / f"step-{first - 1}.safetensors" if first > 1 else self._base() / BASE,
            continued / f"step-{last}.safetensors",
            small_steps=True,
        )

    def _fine_tune(self) -> Pair:
        source = self._run(
            "source",
            "bf16",
            lambda folder: save(
                {n: p.to(torch.bfloat16) for n, p in pretrained(self._source).named_parameters()},
                folder / "model.safetensors",
            ),
        )
        return Pair(
            "fine-tune, 100 steps",
            "100 AdamW steps at 4e-5, bf16",
            source / "model.safetensors",
            self._base() / BASE,
        )

    def _from_scratch(self) -> Pair:
        first = self._run(
            "scratch",
            SCRATCH,
            lambda folder: train(untrained(self._source), self._source, SCRATCH, folder),
        )
        phase = REINFORCE["rl-3e-6"]

        def go_on(folder: Path) -> None:
            model = load_masters(untrained(self._source), first / "masters.safetensors")
            train(model, self._source, phase, folder)

        after = self._run("scratch-rl", (SCRATCH, phase), go_on)
        return Pair(
            "from scratch",
            "a small model trained from scratch, then 16 AdamW steps at 3e-6, bf16",
            first / f"step-{SCRATCH.steps}.safetensors",
            after / f"step-{phase.steps}.safetensors",
            small_steps=True,
        )

    def _safepatching(self) -> Pair:
        base = self._base()

        def derive(folder: Path) -> None:
            for name, phase in COMPONENTS.items():
                (folder / name).mkdir()
                model = self._masters(base)
                train(model, self._source, phase, folder / name)
                score(model, self._source, phase.seed, folder / name / "scores.safetensors")

        parts = self._run("safepatching", (FINE_TUNE, COMPONENTS), derive)
        model = base / BASE

        inputs = {
            key: parts / name / file
            for name in COMPONENTS
            for key, file in (
                (name, "masters.safetensors"),
                (f"{name}_scores", "scores.safetensors"),
            )
        }

        def build(out: Path, codec: Codec) -> object:
            return patchc.build(model, out=out, codec=codec, **inputs)

        patch, tuned = parts / "rice.patchc", parts / "model.safetensors"
        for stale in (patch, tuned):
            stale.unlink(missing_ok=True)
        build(patch, "rice")
        patchc.apply(patch, model, out=tuned)
        return Pair("SafePatching", "SafePatching with its defaults, bf16", model, tuned, build)

    def _fp32(self) -> Pair:
        return Pair(
            "fp32 masters",
            "16 AdamW steps at 1e-6, the fp32 masters themselves",
            self._base() / "masters.safetensors",
            self._continued("rl-1e-6") / "masters.safetensors",
        )

    def _fp16(self) -> Pair:
        return self._converted(
            "fp16", "16 AdamW steps at 1e-6, masters rounded to fp16", "rl-1e-6", _to_fp16
        )

    def _int8(self) -> Pair:
        return self._converted(
            "int8", "16 AdamW steps at 3e-6, masters rounded to int8 by row", "rl-3e-6", _to_int8
        )

    def _converted(
        self, name: str, what: str, phase: str, change: Callable[[str, Tensor], Weights]
    ) -> Pair:
        sources = {"base": self._base(), "tuned": self._continued(phase)}

        def make(folder: Path) -> None:
            for part, source in sources.items():
                convert(source / "masters.safetensors", folder / f"{part}.safetensors", change)

        folder = self._run(name, (FINE_TUNE, REINFORCE[phase]), make)
        return Pair(name, what, folder / "base.safetensors", folder / "tuned.safetensors")

    def _gaussian(self, density: float) -> Pair:
        name = f"Gaussian, {density:.1%}"
        folder = self._run(
            f"gaussian-{density}",
            (density, GAUSSIAN_WORDS),
            lambda folder: _write_gaussian(density, folder),
        )
        return Pair(
            name,
            "Gaussian weights plus Gaussian noise, bf16",
            folder / "base.safetensors",
            folder / "tuned.safetensors",
        )


def _span(name: str, first: int, last: int) -> str:
    if first == last:
        return f"{name}, step {last}"
    return f"{name}, steps {first} to {last}"


def _to_fp16(name: str, value: Tensor) -> Weights:
    return {name: value.to(torch.float16)}


def _to_int8(name: str, value: Tensor) -> Weights:
    if value.dim() < 2:
        return {name: value}
    scale = value.abs().amax(1, keepdim=True) / 127
    return {name: (value / scale).round().to(torch.int8), f"{name}.scale": scale}


def _write_gaussian(density: float, folder: Path) -> None:
    """Noise of the scale at which that share of bf16 words changes, found by bisection."""
    generator = torch.Generator().manual_seed(0)
    master, noise = (torch.randn(GAUSSIAN_WORDS, generator=generator) for _ in range(2))
    base = (master * 0.02).to(torch.bfloat16)
    low, high = 1e-9, 1.0
    for _ in range(20):
        scale = (low * high) ** 0.5
        tuned = (master * 0.02 + noise * scale).to(torch.bfloat16)
        share = (base != tuned).float().mean().item()
        low, high = (scale, high) if share < density else (low, scale)
    for name, value in (("base", base), ("tuned", tuned)):
        save({"weight": value.view(-1, 1024)}, folder / f"{name}.safetensors")
