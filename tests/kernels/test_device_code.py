"""Every Triton kernel compiles for real targets, without a GPU, and contracts nothing."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from patchc.dtypes import BY_NAME
from patchc.kernels.additive_merge import triton as additive
from patchc.kernels.launch import BLOCK, OPTIONS
from patchc.kernels.safepatching_merge import triton as select
from patchc.kernels.snip import triton as snip
from patchc.kernels.topk import triton as topk

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"
)

F32, F16, BF16, E4M3 = (BY_NAME[name].code for name in ("F32", "F16", "BF16", "F8_E4M3"))
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
DRAW = "i64 i32 i64 i64 i64"
FUSED = re.compile(r"\bfma\.rn\.f|\bv_(pk_)?(fma|fmac|mac|mad)_f")


@dataclass(frozen=True)
class Kernel:
    """A kernel, the types of its run-time arguments in order, and its constants."""

    function: Any
    types: str
    constants: dict[str, Any]
    draws: bool = False
    divides: bool = False


_SELECT = {
    "BASE": BF16, "TUNED_A": F32, "TUNED_B": F32, "MASKED_A": False, "MASKED_B": False,
    "DRAWN_A": True, "DRAWN_B": True, "COMPONENTS": 2, "SETS": "difference", "RANK_ALL": False,
    "LEAD": 0, "RESOLVE": False,
}  # fmt: skip
_SELECT_TYPES = (
    "*i16 *i32 *i32 *i32 *i32 *i64 *i64 *i64 *i32 *i32 *i32 i32 i32 i64 "
    "fp32 i64 i64 i64 fp32 i64 i64 i64"
)
KERNELS = {
    "snip": Kernel(snip.add_scores, "*fp32 *i16 *i16 i32", {"GRADIENTS": BF16, "WEIGHTS": F16}),
    "high": Kernel(
        topk.count_halves,
        f"*i32 *i64 *i64 *i64 {DRAW}",
        {"LEAD": 0, "DRAWN": True, "LOWER": False, "REPLICAS": 8},
        True,
    ),
    "low": Kernel(
        topk.count_halves,
        f"*i32 *i64 *i64 *i64 {DRAW}",
        {"LEAD": 3, "DRAWN": True, "LOWER": True, "REPLICAS": 8},
        True,
    ),
    "mark": Kernel(
        topk.mark,
        f"*i32 *i64 *i32 *i64 *i8 {DRAW}",
        {"LEAD": 0, "DRAWN": True, "RESOLVE": True},
        True,
    ),
    "rows": Kernel(
        topk.mark_rows, f"*i32 *i8 *i64 i64 i32 {DRAW[4:]}", {"DRAWN": True, "TILES": 5}, True
    ),
    "select": Kernel(select.select, _SELECT_TYPES, _SELECT, True),
    "select fp8, by masks": Kernel(
        select.select,
        _SELECT_TYPES.replace("*i16 *i32 *i32 *i32 *i32", "*i8 *i16 *i16 *i8 *i8"),
        _SELECT
        | {
            "BASE": E4M3,
            "TUNED_A": BF16,
            "TUNED_B": F16,
            "MASKED_A": True,
            "MASKED_B": True,
            "RESOLVE": True,
            "SETS": "union",
        },
        True,
    ),
    "gather": Kernel(select.gather, "*i32 *i32 *i64 *i32 *i32", {}),
    "additive": Kernel(
        additive.add_deltas,
        "*i16 *i32 *i16 *i16 i32 *i32 *i16 *i16 i32 *i32 fp32 fp32",
        {"WORDS": BF16, "DELTAS": BF16, "COMPONENTS": 2},
    ),
    "put back": Kernel(additive.put_back, "*i16 *i32 *i16 i32", {}),
}


def _compile(kernel: Kernel, target: GPUTarget, **options: Any) -> str:
    constants = kernel.constants | {"BLOCK": BLOCK}
    names = [name for name in kernel.function.arg_names if name not in constants]
    signature = dict(zip(names, kernel.types.split(), strict=True))
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel.function, signature, constants)
    code = triton.compile(source, target=target, options=OPTIONS | options).asm
    text: str = code["amdgcn"] if target.backend == "hip" else code["ptx"]
    return text


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_compiles_and_contracts_nothing(name: str, target: str) -> None:
    text = _compile(KERNELS[name], TARGETS[target])
    # On gfx942 an exact division is itself a sequence of fused operations.
    if not (KERNELS[name].divides and target == "gfx942"):
        assert not FUSED.search(text)
    if KERNELS[name].draws and target != "gfx942":
        # The first round constant of Philox4x32 as PTX writes it, and nothing of Philox4x64's.
        assert "-766435501" in text
        assert "mul.hi.u64" not in text


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_the_search_for_contraction_finds_it(target: str) -> None:
    """The proof above is worth something only if contraction, once allowed, would show."""
    text = _compile(KERNELS["select"], TARGETS[target], enable_fp_fusion=True)
    assert FUSED.search(text)


@pytest.mark.parametrize("module", [additive, select, snip, topk])
def test_no_kernel_is_left_out(module: Any) -> None:
    launched = {kernel.function.fn.__name__ for kernel in KERNELS.values()}
    own = [v for v in vars(module).values() if isinstance(v, triton.JITFunction)]
    entries = {f.fn.__name__ for f in own if f.fn.__module__ == module.__name__}
    helpers = {name for name in entries if name.startswith("_")} | {"block_of", "membership"}
    assert entries - helpers <= launched
