"""Streamed derivations write the bytes of those in memory, whatever streams and in what pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from derivations import OPTIONS, STREAMED, material_of, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_families import FAMILIES, write_family

from patchc.derivation.derive_options import DeriveOptions, Objective, Optimizer, Precision
from patchc.derivation.trainer import Layout

ONE_DIRECTION = replace(OPTIONS, directions=("se",))
RECOMPUTED = Layout(keeps=False)
LAYOUTS = [
    RECOMPUTED,
    STREAMED,
    replace(STREAMED, states_in_scratch=True),
    replace(STREAMED, ahead=False),
    replace(STREAMED, states_in_scratch=True, ahead=False),
]
Base = Callable[[str, torch.dtype], Path]


@contextmanager
def pieces(head_bytes: int, run: int) -> Iterator[None]:
    """Head and optimiser work in small pieces; the 8-bit one from the first entry on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("patchc.layered.output_head.BLOCK_BYTES", head_bytes)
        patch.setattr("patchc.layered.layered_model.BLOCK_BYTES", head_bytes)
        patch.setattr("patchc.derivation.adamw.RUN", run)
        patch.setattr("patchc.derivation.states.RUN", run)
        patch.setattr("patchc.derivation.adamw._FEWEST_IN_8_BITS", 64)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp("bases")

    @cache
    def write(family: str, dtype: torch.dtype) -> Path:
        return write_family(folder / f"{family} {dtype}", family, dtype)

    return write


def options_for(objective: Objective) -> DeriveOptions:
    return replace(ONE_DIRECTION if objective == "pair" else OPTIONS, objective=objective)


def compare(base: Path, folder: Path, options: DeriveOptions, layouts: list[Layout]) -> None:
    folder = Path(mkdtemp(dir=folder))
    material = material_of(folder, options)
    in_memory = written(base, material, folder / "out", options)
    for layout in layouts:
        found = written(base, material, folder / "out", options, layout, folder / "scratch")
        assert found == in_memory, layout
        assert not (folder / "scratch").exists()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_each_way_of_streaming(tmp_path: Path, base: Base, layout: Layout) -> None:
    with pieces(head_bytes=5 * 64, run=100):
        compare(base("llama", torch.bfloat16), tmp_path, OPTIONS, [layout])


@pytest.mark.parametrize("retain", [1.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_margin_of_some_entries(
    tmp_path: Path, base: Base, dtype: torch.dtype, retain: float
) -> None:
    """A base in bf16 stays so where not everything is trained."""
    options = replace(
        options_for("margin"), retain=retain, whole=True, include=("proj", "embed", "norm")
    )
    with pieces(head_bytes=5 * 64, run=100):
        compare(base("llama, tied", dtype), tmp_path, options, [STREAMED])


@pytest.mark.parametrize("layout", [STREAMED, RECOMPUTED], ids=str)
def test_compact_components(tmp_path: Path, base: Base, layout: Layout) -> None:
    """Of some biases, no entry is drawn."""
    options = replace(
        options_for("margin"), retain=0.1, precision="bfloat16", include=("proj", "norm")
    )
    compare(base("qwen2", torch.bfloat16), tmp_path, options, [layout])


def test_8_bit_moments_with_bf16_products(tmp_path: Path, base: Base) -> None:
    options = replace(options_for("npo"), optimizer="adamw8bit", precision="bfloat16")
    with pieces(head_bytes=7 * 64, run=256):
        compare(base("gpt2", torch.bfloat16), tmp_path, options, [STREAMED, RECOMPUTED])


@settings(
    max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # a folder for all examples will do
@given(
    family=st.sampled_from(FAMILIES),
    dtype=st.sampled_from([torch.bfloat16, torch.float32, torch.float16]),
    layout=st.sampled_from(LAYOUTS),
    objective=st.sampled_from(["pair", "npo", "margin", "answers"]),
    optimizer=st.sampled_from(["adamw", "adamw8bit"]),
    precision=st.sampled_from(["float32", "bfloat16"]),
    retain=st.sampled_from([1.0, 0.2]),
    include=st.sampled_from([(), (".",), ("embed|wte", "q_proj|c_attn"), ("head|wte|norm|ln",)]),
    steps=st.integers(1, 3),
    batch_size=st.integers(2, 5),
    samples=st.integers(1, 4),
    head_rows=st.integers(1, 30),
    run=st.integers(1, 6),
)
def test_any_derivation(
    tmp_path: Path,
    base: Base,
    family: str,
    dtype: torch.dtype,
    layout: Layout,
    objective: Objective,
    optimizer: Optimizer,
    precision: Precision,
    retain: float,
    include: tuple[str, ...],
    steps: int,
    batch_size: int,
    samples: int,
    head_rows: int,
    run: int,
) -> None:
    options = options_for(objective)
    tuning = replace(options.se, steps=steps, batch_size=batch_size)
    options = replace(
        options, se=tuning, osm=tuning, margin=tuning, score_samples=samples, include=include,
        optimizer=optimizer, precision=precision, retain=retain,
    )  # fmt: skip
    with pieces(head_bytes=head_rows * 64, run=256 * run):
        compare(base(family, dtype), tmp_path, options, [layout])
