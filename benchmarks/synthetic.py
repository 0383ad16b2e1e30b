"""Streams synthetic checkpoints of any size to a folder, without holding one in memory.

    python benchmarks/synthetic.py FOLDER --gigabytes 4

writes ``FOLDER/base`` (bf16, several shards), ``FOLDER/tuned`` (bf16; one entry in a hundred moved
by one unit in the last place) and ``FOLDER/scores`` (fp32, for the decoder's linear layers). Shapes
are those of a decoder: one large embedding, then layers of three projections and a norm.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GIGABYTE = 10**9
_BLOCK = 1 << 22
_POOL = 5 * _BLOCK
_SHARD_BYTES = GIGABYTE

Shapes = dict[str, tuple[int, ...]]
Fill = Callable[[int, int], NDArray[np.generic]]
Words = NDArray[np.uint16]


@dataclass(frozen=True)
class Synthetic:
    """Folders of one synthetic case; ``scores`` serve both components."""

    base: Path
    tuned: Path
    scores: Path
    base_bytes: int
    candidate_entries: int


def write_case(
    folder: Path,
    base_bytes: int,
    with_scores: bool = True,
    density: float | None = None,
    tuned_in: Path | None = None,
    scores_in: Path | None = None,
) -> Synthetic:
    """Write base, tuned and scores, and return where they are.

    With ``density``, that share of the tuned words differs as after training
    (:func:`draw_update`); without, one in a hundred, whatever its size. ``tuned_in`` and
    ``scores_in`` are folders on other media, for what ``folder`` has no room for.
    """
    base = folder / "base"
    tuned, scores = (tuned_in or folder) / "tuned", (scores_in or folder) / "scores"
    shapes = _shapes(base_bytes // 2)
    linear = {name: shape for name, shape in shapes.items() if "proj" in name}
    pools = _Pools(density)
    _write(base, "model", shapes, "BF16", pools.base)
    _write(tuned, "model", shapes, "BF16", pools.tuned)
    if with_scores:
        _write(scores, "scores", linear, "F32", pools.scores)
    return Synthetic(
        base,
        tuned,
        scores,
        2 * sum(map(math.prod, shapes.values())),
        sum(map(math.prod, linear.values())),
    )


def draw_update(rng: np.random.Generator, words: int, density: float) -> tuple[Words, Words]:
    """Words of bf16 weights before and after an update of fp32 masters; ``density`` of them change.

    Weights are Gaussian, and so is the update, of one size for all: small weights change first.
    """
    masters, noise = _gaussian(rng, words), rng.standard_normal(words, np.float32)
    sample = slice(0, min(words, 1 << 20))
    least, most = 1e-9, 1e2
    for _ in range(24):
        size = np.float32(math.sqrt(least * most))
        moved = masters[sample] + size * noise[sample]
        if np.mean(_truncated(moved) != _truncated(masters[sample])) > density:
            most = float(size)
        else:
            least = float(size)
    return _truncated(masters), _truncated(masters + size * noise)


def _gaussian(rng: np.random.Generator, words: int) -> NDArray[np.float32]:
    return rng.standard_normal(words, np.float32) * np.float32(0.02)


def _truncated(values: NDArray[np.float32]) -> Words:
    return (values.view(np.uint32) >> 16).astype(np.uint16)


class _Pools:
    """Values drawn once; each block of a tensor is a window into them that its place decides."""

    def __init__(self, density: float | None) -> None:
        rng = np.random.default_rng(0)
        size = _POOL + _BLOCK
        if density is None:
            self._base = _truncated(_gaussian(rng, size))
            steps = rng.choice(np.array([1, -1], np.int16), size) * (rng.random(size) < 0.01)
            self._tuned = (self._base.view(np.int16) + steps).view(np.uint16)
        else:
            self._base, self._tuned = draw_update(rng, size, density)
        self._scores = rng.standard_exponential(size, np.float32)

    def base(self, place: int, count: int) -> NDArray[np.generic]:
        return self._window(self._base, place, count)

    def tuned(self, place: int, count: int) -> NDArray[np.generic]:
        return self._window(self._tuned, place, count)

    def scores(self, place: int, count: int) -> NDArray[np.generic]:
        return self._window(self._scores, place + 1, count)

    @staticmethod
    def _window(pool: NDArray[np.generic], place: int, count: int) -> NDArray[np.generic]:
        start = place * 1_000_003 % _POOL
        return pool[start : start + count]


def _shapes(entries: int) -> Shapes:
    """A decoder of about so many entries, wider the more there are."""
    width = 4096 if entries >= 10**9 else 1024
    inner = 11 * width // 4
    shapes: Shapes = {"model.embed_tokens.weight": (8 * width, width)}
    layer = 0
    while sum(map(math.prod, shapes.values())) + 3 * width * inner <= entries:
        prefix = f"model.layers.{layer}"
        shapes[f"{prefix}.mlp.gate_proj.weight"] = (inner, width)
        shapes[f"{prefix}.mlp.up_proj.weight"] = (inner, width)
        shapes[f"{prefix}.mlp.down_proj.weight"] = (width, inner)
        shapes[f"{prefix}.input_layernorm.weight"] = (width,)
        layer += 1
    return shapes


def _write(folder: Path, stem: str, shapes: Shapes, dtype: str, fill: Fill) -> None:
    folder.mkdir(parents=True)
    shards: list[Shapes] = [{}]
    size = 2 if dtype == "BF16" else 4
    for name, shape in shapes.items():
        held = size * sum(map(math.prod, shards[-1].values()))
        if held and held + size * math.prod(shape) > _SHARD_BYTES:
            shards.append({})
        shards[-1][name] = shape
    places: dict[str, str] = {}
    block = 0
    for number, shard in enumerate(shards, start=1):
        file_name = f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
        places |= dict.fromkeys(shard, file_name)
        block = _write_shard(folder / file_name, shard, dtype, size, fill, block)
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))


def _write_shard(path: Path, shapes: Shapes, dtype: str, size: int, fill: Fill, block: int) -> int:
    """Write one shard; blocks are numbered through the whole checkpoint."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        end = at + size * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            left = math.prod(shape)
            while left:
                count = min(left, _BLOCK)
                file.write(np.ascontiguousarray(fill(block, count)).data)
                left -= count
                block += 1
    return block


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of the base")
    parser.add_argument("--no-scores", action="store_true", help="write base and tuned only")
    options = parser.parse_args()
    case = write_case(
        options.folder, int(options.gigabytes * GIGABYTE), with_scores=not options.no_scores
    )
    print(f"base {case.base_bytes:,} bytes, {case.candidate_entries:,} entries with scores")


if __name__ == "__main__":
    main()
