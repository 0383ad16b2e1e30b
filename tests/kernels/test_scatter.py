"""The scatter of steps: oracle, compiled CPU loop, Triton interpreter, compilation, real device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from patchc.kernels.ulp_steps import StepRun, launches
from patchc.kernels.ulp_steps.reference import add_steps

torch = pytest.importorskip("torch")

WIDTHS = (8, 16, 32, 64)
# width, float, word, step, word after
TABLE = [
    (16, True, 0x0000, -1, 0x8000),  # +0 → −0
    (16, True, 0x8001, 3, 0x0001),  # smallest negative → smallest positive
    (16, True, 0xBF80, -1, 0xBF81),  # bf16 −1 → the next below
    (16, True, 0x7F80, 0x41, 0x7FC1),  # ∞ → a NaN with a payload
    (16, True, 0xFFFF, -1, 0x7FFF),  # the extremes of the order wrap around
    (8, True, 0x7E, 3, 0xFE),  # E4M3 448 → −448
    (8, False, 0x00, -1, 0xFF),
    (32, False, 0, -(2**31), 0x80000000),
    (64, True, 0x8000000000000000, 1, 0),
    (64, False, 2**64 - 1, 1, 0),
]
CASES = [
    pytest.param(width, step_width, is_float, count, id=f"{width}-{step_width}-{is_float}-{count}")
    for width in WIDTHS
    for step_width in WIDTHS
    if step_width <= width
    for is_float in (True, False)
    for count in (1, 33, 1024, 5000)
]


def _case(width: int, step_width: int, count: int) -> tuple[NDArray, NDArray, NDArray]:
    """Random words, distinct positions of about half of them, and random steps."""
    rng = np.random.default_rng(1000 * width + 10 * step_width + count)
    words = np.frombuffer(rng.bytes(count * width // 8), f"u{width // 8}").copy()
    positions = np.flatnonzero(rng.random(count) < 0.5).astype(np.int32)
    steps = np.frombuffer(rng.bytes(len(positions) * step_width // 8), f"i{step_width // 8}")
    return words, positions, steps.copy()


def _run(words: NDArray, positions: NDArray, steps: NDArray, order: bool, device: str) -> StepRun:
    """A run whose words are copied to a device, or are this very memory on the CPU."""
    signed = torch.from_numpy(words.view(f"i{words.itemsize}")).to(device)
    ours = (torch.from_numpy(array).to(device) for array in (positions, steps))
    return StepRun(signed, *ours, order)


@pytest.mark.parametrize(("width", "is_float", "before", "step", "after"), TABLE)
def test_words_equal_a_hand_written_table(
    width: int, is_float: bool, before: int, step: int, after: int
) -> None:
    words = np.array([before], f"u{width // 8}")
    positions, steps = np.array([0], np.int32), np.array([step], f"i{width // 8}")
    assert add_steps(words, positions, steps, is_float, "result").tolist() == [after]
    (launch,) = launches([_run(words, positions, steps, is_float, "cpu")])
    assert words.tolist() == [before]
    launch.add("result")
    assert words.tolist() == [after]
    launch.add("base")
    assert words.tolist() == [before]


@pytest.mark.parametrize(("width", "step_width", "is_float", "count"), CASES)
def test_compiled_loop_equals_the_oracle(
    width: int, step_width: int, is_float: bool, count: int
) -> None:
    words, positions, steps = _case(width, step_width, count)
    for target in ("result", "base"):
        expected = add_steps(words, positions, steps, is_float, target)
        changed = words.copy()
        for launch in launches([_run(changed, positions, steps, is_float, "cpu")]):
            launch.add(target)
        assert np.array_equal(changed, expected)


def test_runs_of_one_type_are_one_launch_and_empty_ones_none() -> None:
    cases = [_case(16, 8, 500), _case(16, 8, 3000), _case(16, 16, 40), _case(32, 8, 40)]
    runs = [_run(*case, True, "cpu") for case in cases]
    expected = [add_steps(*case, True, "result") for case in cases]
    nothing = _run(np.zeros(4, np.uint64), np.empty(0, np.int32), np.empty(0, np.int8), True, "cpu")
    prepared = launches([*runs, nothing])
    assert [len(launch.runs) for launch in prepared] == [2, 1, 1]
    for launch in prepared:
        launch.add("result")
    assert all(np.array_equal(case[0], e) for case, e in zip(cases, expected, strict=True))


def test_triton_interpreter_equals_the_oracle(tmp_path: Path) -> None:
    """In a process of its own: whether Triton interprets is settled when a kernel is defined."""
    pytest.importorskip("triton")
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_scatter
print(test_scatter.interpret())
"""
    environment = os.environ | {"TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(tmp_path)}
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == f"{2 * len(CASES)}\n"


def interpret() -> int:
    """Run all cases through the Triton kernel on the CPU's memory; how many were compared."""
    from patchc.kernels.ulp_steps.triton import on_device

    compared = 0
    for case in CASES:
        width, step_width, is_float, count = case.values
        words, positions, steps = _case(width, step_width, count)
        for target in ("result", "base"):
            guarded = np.concatenate([words, words])
            other = _case(width, step_width, count + 1)
            expected = add_steps(words, positions, steps, is_float, target)
            others = add_steps(*other, is_float, target)
            runs = [_run(guarded[:count], positions, steps, is_float, "cpu")] if len(steps) else []
            runs.append(_run(*other, is_float, "cpu"))
            on_device(runs)(target)
            assert np.array_equal(guarded[:count], expected if len(runs) > 1 else words), case.id
            assert np.array_equal(guarded[count:], words), case.id
            assert np.array_equal(other[0], others), case.id
            compared += 1
    return compared


TARGETS = [("cuda", 80, 32), ("cuda", 90, 32), ("cuda", 100, 32), ("hip", "gfx942", 64)]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target[0]}-{target[1]}")
@pytest.mark.parametrize(
    ("word", "step", "order"), [("int16", "int8", True), ("int64", "int64", False)]
)
def test_the_kernel_compiles_without_a_device(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: tuple[str, int | str, int],
    word: str,
    step: str,
    order: bool,
) -> None:
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from patchc.kernels.ulp_steps.triton import BLOCK, OPTIONS, add_steps_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    language = triton.language
    constants = {
        "word_type": getattr(language, word), "step_type": getattr(language, step),
        "bits": int(word[3:]), "total_order": order, "block": BLOCK,
    }  # fmt: skip
    signature = {"table": "*i64", "sign": "i32"} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(add_steps_kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget(*target), options=OPTIONS)
    binary = compiled.asm["cubin" if target[0] == "cuda" else "hsaco"]
    assert binary[:4] == b"\x7fELF"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_device_equals_the_oracle() -> None:
    for case in CASES:
        width, step_width, is_float, count = case.values
        words, positions, steps = _case(width, step_width, count)
        for target in ("result", "base"):
            expected = add_steps(words, positions, steps, is_float, target)
            run = _run(words, positions, steps, is_float, "cuda")
            for launch in launches([run]):
                launch.add(target)
            assert np.array_equal(run.words.cpu().numpy().view(words.dtype), expected), case.id
