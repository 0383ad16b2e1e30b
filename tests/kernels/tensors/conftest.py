"""Where kernels on tensors run in these tests.

As it is, tensors on the CPU take the compiled loops. ``test_interpreter.py``, one folder up, runs
this folder again with TRITON_INTERPRET=1, where they take the Triton kernels; ``pytest -m gpu``
runs those on a CUDA device.
"""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def triton_device(device: str) -> str:
    """The same, for tests of device code itself."""
    if device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("device code needs a CUDA device, or TRITON_INTERPRET=1")
    return device
