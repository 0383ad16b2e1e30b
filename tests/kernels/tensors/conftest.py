"""Where kernels on tensors run in these tests.

As it is, tensors on the CPU take the compiled loops. ``test_interpreter.py``, one folder up, runs
this folder again with TRITON_INTERPRET=1, where they take the Triton kernels; ``pytest -m gpu``
runs those on a CUDA device.
"""

from __future__ import annotations

import os

import pytest
import torch

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> str:
    """The device to put tensors on."""
    name: str = request.param
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return name


@pytest.fixture
def triton_device(device: str) -> str:
    """The same, for tests of device code itself."""
    if device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("device code needs a CUDA device, or TRITON_INTERPRET=1")
    return device
