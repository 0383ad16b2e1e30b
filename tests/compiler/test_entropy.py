"""The bound that build, diff and inspect print, against a plain entropy of counted pairs."""

from __future__ import annotations

import json
from collections import Counter
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import selection_oracle as oracle
from build_inputs import expected_tensors, random_inputs, small_inputs, words
from command_line import run
from forged_patch import parts_of
from numpy.typing import NDArray
from tiny_checkpoints import PatchedModel, Raw, normal, raw, write_model

import patchc
from patchc import Recipe
from patchc.dtypes import BY_NAME

EXPONENT = {
    "F64": (52, 11), "F32": (23, 8), "F16": (10, 5), "BF16": (7, 8), "F8_E4M3": (3, 4),
    "F8_E5M2": (2, 5),
}  # fmt: skip
"""Lowest bit and bits of the exponent."""


def bound(dtype: str, before: NDArray, after: NDArray) -> tuple[float, float, float]:
    """Bits of positions, of values with large steps in buckets, and of values without."""
    low, bits = EXPONENT.get(dtype, (0, 0))
    exponents = [(int(word) >> low) & ((1 << bits) - 1) for word in before]
    steps = oracle.steps(before, after, dtype in EXPONENT)
    words = Counter(exponents)
    changed = Counter(exponents[at] for at in steps)
    positions = sum(
        -part * log2(part / words[e])
        for e, count in changed.items()
        for part in (count, words[e] - count)
        if part
    )
    exact = Counter((exponents[at], step) for at, step in steps.items())
    coarse = Counter((exponents[at], *bucket(step)) for at, step in steps.items())
    values = [
        -sum(n * log2(n / changed[e]) for (e, *_), n in counts.items())
        for counts in (coarse, exact)
    ]
    raw_bits = sum(bucket(step)[2] for step in steps.values())
    return positions, values[0] + raw_bits, values[1]


def bucket(step: int) -> tuple[bool, int, int]:
    """Sign, bucket and its raw bits: the number itself up to 32, then the four leading bits."""
    value = abs(step) - 1
    dropped = max(0, value.bit_length() - 4) if value >= 32 else 0
    return step < 0, (value >> dropped) + (dropped << 32), dropped


def diff(folder: Path, before: dict[str, Any], after: dict[str, Any], **options: Any) -> Any:
    paths = [write_model(folder / part, t) for part, t in (("a", before), ("b", after))]
    return patchc.diff(*paths, out=folder / "update.patchc", chunk_bits=12, **options)


@pytest.mark.parametrize("dtype", BY_NAME)
@pytest.mark.parametrize("reach", [3, 1 << 62])
def test_the_entropy_of_every_dtype(tmp_path: Path, dtype: str, reach: int) -> None:
    kind = BY_NAME[dtype]
    rng = np.random.default_rng(kind.code)
    before = np.frombuffer(rng.bytes(9000 * kind.word_bytes), kind.word)
    moved = before + rng.integers(1, reach, 9000).astype(kind.word)
    after = np.where(rng.random(9000) < 0.1, moved, before)
    count = 9000 * kind.word_bits // kind.bits
    tensors = [{"t": Raw(dtype, (count,), words.tobytes())} for words in (before, after)]
    report = diff(tmp_path, *tensors, threads=3)
    positions, values, unbucketed = bound(dtype, before, after)
    assert report.entropy.positions == pytest.approx(positions, rel=1e-9)
    assert report.entropy.values == pytest.approx(values, rel=1e-9)
    assert report.entropy.values >= unbucketed * (1 - 1e-9)
    if reach == 3 and kind.word_bits > 8:
        assert values == pytest.approx(unbucketed, rel=1e-9)


def test_bounds_of_tensors_add_up(patched: PatchedModel) -> None:
    pairs = [
        [np.frombuffer(raw(side[name]).data, "<u2") for side in
         (patched.base_tensors, patched.tuned_tensors)]
        for name in patched.base_tensors
    ]  # fmt: skip
    parts = [bound("BF16", *pair) for pair in pairs]
    report = patchc.inspect(patched.patch)
    assert report.entropy is not None
    assert report.entropy.positions == pytest.approx(sum(p for p, *_ in parts), rel=1e-4, abs=0.5)
    assert report.entropy.values == pytest.approx(sum(v for _, v, _ in parts), rel=1e-4, abs=0.5)
    assert report.entropy.total < 8 * report.total.nbytes


def test_a_constant_change_is_free(tmp_path: Path) -> None:
    before = np.arange(10000, dtype=np.int32)
    report = diff(tmp_path, {"t": before}, {"t": before + 5})
    assert (report.entropy.positions, report.entropy.values) == (0, 0)
    assert report.entries == 10000


def test_an_empty_patch_has_no_bound(tmp_path: Path) -> None:
    same = {"t": normal((50,), "BF16", 1)}
    assert diff(tmp_path, same, same).entropy.total == 0
    shown = run("inspect", tmp_path / "update.patchc")[1]
    assert "entropy" not in shown


def test_build_prints_the_bound(tmp_path: Path) -> None:
    """Where nothing is known of the selection, that of the models' difference."""
    paths, fixed = small_inputs().write(tmp_path), tmp_path / "fixed"
    everything = Recipe(retain=1)
    built = patchc.build(**paths, out=tmp_path / "fix.patchc", recipe=everything)
    patchc.apply(tmp_path / "fix.patchc", tmp_path / "base", out=fixed)
    again = patchc.diff(tmp_path / "base", fixed, out=tmp_path / "up.patchc", weights_only=True)
    assert built.entropy == again.entropy
    assert built.body_bytes == again.body_bytes


@pytest.mark.parametrize("sets", ["difference", "se"])
def test_the_words_of_each_mask_count_apart(tmp_path: Path, sets: Any) -> None:
    inputs = random_inputs({"layers.0.weight": (90, 101)})
    recipe = Recipe(retain=0.3, seed=4, sets=sets)
    built = patchc.build(
        **inputs.write(tmp_path), out=tmp_path / "fix.patchc", recipe=recipe, chunk_bits=12
    )
    before = words(inputs.base["layers.0.weight"])
    after = words(expected_tensors(inputs, recipe)["layers.0.weight"].result)
    groups = sum(
        oracle.retained(part, "layers.0.weight", 4, 0.3, 0, before.size) * (i + 1)
        for i, part in enumerate(["se"] if sets == "se" else ["se", "osm"])
    )
    parts = [bound("BF16", before[groups == g], after[groups == g]) for g in range(4)]
    assert built.entropy is not None
    assert built.entropy.positions == pytest.approx(sum(p for p, *_ in parts))
    assert built.entropy.values == pytest.approx(sum(v for _, v, _ in parts))


def test_the_commands_print_the_same_bound(tmp_path: Path, patched: PatchedModel) -> None:
    out = tmp_path / "again.patchc"
    made = json.loads(run("diff", patched.base, patched.tuned, "-o", out, "--json")[1])
    report = patchc.inspect(out)
    assert made["body_bytes"] == report.total.nbytes
    assert set(made["entropy"]) == {"positions", "values"}
    bits = 8 / made["entries"]
    whole = made["size"] * bits
    positions, values = (made["coded"][part] / made["entries"] for part in ("positions", "values"))
    coded = positions + values
    assert 0 < coded < 8 * made["body_bytes"] / made["entries"] < whole
    split = f"positions {positions:.2f}, values {values:.2f}"
    out.unlink()
    for shown in (
        run("diff", patched.base, patched.tuned, "-o", out)[1],
        run("inspect", out)[1],
    ):
        assert f"{whole:.2f} (whole file): {split}, framing {whole - coded:.2f}" in shown
        entropy = sum(made["entropy"].values()) / made["entries"]
        assert f"{entropy:.2f} bits per change (positions" in shown
        assert f"given tensor and exponent; the file takes {whole / entropy:.3g} times" in shown


@pytest.mark.parametrize(
    ("retain", "given"), [(0.5, "tensor, exponent and masks"), (1, "tensor and exponent")]
)
def test_masks_are_named_where_there_are_some(tmp_path: Path, retain: float, given: str) -> None:
    paths = random_inputs({"model.layers.0.mlp.up_proj.weight": (80, 90)}).write(tmp_path)
    out = tmp_path / "fix.patchc"
    _, built, _ = run(
        "build", paths["base"], "--se", paths["se"], "--osm", paths["osm"], "--retain", retain,
        "-o", out,
    )  # fmt: skip
    for shown in (built, run("inspect", out)[1]):
        assert f"given {given}; the file takes" in shown


@pytest.mark.parametrize(
    "entropy",
    [None, 5, {}, {"positions": 1}, {"positions": -1, "values": 1}, {"positions": 1, "values": "x"},
     {"positions": True, "values": 1}, {"positions": 1.5, "values": 1}],
)  # fmt: skip
def test_a_stranger_may_state_anything(patched: PatchedModel, entropy: object) -> None:
    parts = parts_of(patched.patch.read_bytes())
    metadata = json.dumps({"entropy": entropy}).encode()
    patched.patch.write_bytes(parts.but(metadata=metadata).assemble())
    assert patchc.inspect(patched.patch).entropy is None
    assert run("inspect", patched.patch)[0] == 0
