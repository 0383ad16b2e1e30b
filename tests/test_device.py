"""Building and applying on a device against the CPU's path, byte for byte.

As they are, these tests stage tensors that stay in the host's memory, and kernels take their
compiled loops; one runs them in Triton's interpreter, and ``pytest -m gpu`` on a CUDA device.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from build_inputs import LAYER_0, LAYER_1, NORM, random_inputs

import patchc
from patchc import Recipe
from patchc.recipe.safepatching import Override
from patchc.stream.staging import Staging

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return name


def build_both(
    paths: dict[str, Path], folder: Path, staging: Staging, **options: Any
) -> tuple[bytes, bytes]:
    """The files that the CPU's path and the device's write."""
    folder.mkdir(exist_ok=True)
    out = folder / "cpu.patchc", folder / "device.patchc"
    patchc.build(**paths, out=out[0], **options)
    patchc.build(**paths, out=out[1], device=staging, **options)
    return out[0].read_bytes(), out[1].read_bytes()


SHAPES = {LAYER_0: (7, 4099), LAYER_1: (130, 97), "layers.2.weight": (0,), NORM: (33,)}


@pytest.mark.parametrize("scope", ["tensor", "row", "global"])
@pytest.mark.parametrize("rank_among", ["retained", "all"])
@pytest.mark.parametrize("levels", [None, 3])
def test_the_same_file(
    tmp_path: Path, device: str, scope: Any, rank_among: Any, levels: int | None
) -> None:
    inputs = random_inputs(SHAPES, levels=levels, seed=4, unscored=(NORM,))
    recipe = Recipe(scope=scope, rank_among=rank_among, retain=0.6, top_se=0.3, top_osm=0.2)
    paths = inputs.write(tmp_path)
    for threads in (1, 3):
        options = {"recipe": recipe, "chunk_bits": 12, "threads": threads}
        expected, found = build_both(paths, tmp_path / str(threads), Staging(device), **options)
        assert found == expected
