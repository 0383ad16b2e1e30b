"""The two other ways to run loops: models of intrinsics do what they do, and bounds are checked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fuzzing import loops

from patchc import jit, simd

ROOT = Path(__file__).parents[2]


@jit.loop
def _numbers(one, other, out):
    out[0] = simd.popcount(one)
    out[1] = simd.lowest(one)
    out[2] = simd.nth(one, simd.popcount(one) >> np.uint64(1))
    out[3] = simd.multiply_high(one, other)
    out[4] = simd.bit_length(other)


@jit.loop
def _blocks(words, others, first, low, span, out, wide):
    out[0] = simd.within(words, first, low, span)
    out[1] = simd.differing(words, others, first)
    out[2] = simd.below(words, first, low)
    simd.widen(np.uint32(out[1] & np.uint64(0xFFFFFFFF)), wide, np.uint64(3))


def _modelled(function, monkeypatch):
    """The same loop in Python, with models in place of intrinsics."""
    for name, model in loops.MODELS.items():
        monkeypatch.setattr(simd, name, model)
    return function.__wrapped__


def test_models_of_numbers_do_what_intrinsics_do(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pairs = rng.integers(1, 1 << 64, (50, 2), np.uint64) >> rng.integers(0, 60, (50, 2), np.uint64)
    pairs = [*np.maximum(pairs, np.uint64(1)), *np.array([[1, 0], [1 << 63, 2**64 - 1]], np.uint64)]
    compiled, interpreted = np.zeros((2, 5), np.uint64)
    modelled = [_numbers(one, other, compiled) or compiled.tolist() for one, other in pairs]
    with np.errstate(all="ignore"):
        run = _modelled(_numbers, monkeypatch)
        assert modelled == [
            run(one, other, interpreted) or interpreted.tolist() for one, other in pairs
        ]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_models_of_blocks_do_what_intrinsics_do(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = _found(_blocks, kind)
    assert _found(_modelled(_blocks, monkeypatch), kind) == compiled


def _found(run, kind):
    rng, most, found = np.random.default_rng(1), int(np.iinfo(kind).max), []
    for _ in range(20):
        words = rng.integers(0, most, 100, kind, endpoint=True)
        others = np.where(rng.random(100) < 0.5, words, rng.permutation(words)).astype(kind)
        low, span = (np.uint64(one) for one in rng.integers(0, most // 2, 2, kind))
        out, wide = np.zeros(3, np.uint64), np.zeros(40, np.uint32)
        run(words, others, np.uint64(rng.integers(0, 36)), low, span, out, wide)
        found.append([*out.tolist(), *wide.tolist()])
    return found


def test_a_model_refuses_a_block_outside_the_array() -> None:
    words = np.zeros(100, np.uint16)
    for first, count in ((37, 64), (100, 32)):
        name = "within" if count == 64 else "below"
        given = (np.uint64(1),) * (2 if count == 64 else 1)
        with pytest.raises(IndexError, match="is not in an array of 100"):
            loops.MODELS[name](words, np.uint64(first), *given)


def test_compiled_loops_check_bounds_and_are_kept_under_other_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def last(words, place):
        return words[place]

    usual = jit.loop(last)
    monkeypatch.setitem(jit._COMMON, "boundscheck", False)
    loops.check_bounds()
    checked = jit.loop(last)
    with pytest.raises(IndexError):
        checked(np.zeros(3), 3)
    names = [one._cache._digest for one in (usual, checked)]
    assert names[0] != names[1]


def test_a_codec_runs_interpreted(tmp_path: Path) -> None:
    """In a process of its own, since loops are changed for good."""
    code = (
        "from fuzzing import loops; loops.interpret()\n"
        "from fuzzing.targets import TARGETS\n"
        "for name in ('rice', 'additive', 'conditional'):\n"
        "    for seed in TARGETS[name].seeds()[::3]: TARGETS[name].read(seed)\n"
        "import sys; print('numba' in sys.modules)\n"
    )
    path = f"{ROOT / 'tests' / 'fuzz'}:{ROOT / 'tests' / 'support'}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": path, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("False", "")
