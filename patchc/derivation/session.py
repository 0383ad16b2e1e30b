"""Torch settings for a reproducible run, restored afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers.utils import logging

from patchc.errors import UsageError
from patchc.runtime.device import check_number, device_name

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def choose_device(device: str | torch.device) -> torch.device:
    """Find the torch device for an option.

    Raises:
        UsageError: CUDA is asked for and there is none, or not the one.
    """
    name, available = device_name(device), torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not available):
        return torch.device("cpu")
    if not available:
        raise UsageError(f"device is {name} and torch sees no CUDA device; choose cpu")
    return torch.device(check_number("cuda" if name == "auto" else name))


@contextmanager
def reproducible(device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch and allow deterministic algorithms only, in fp32 without TF32.

    Generators, flags and environment are restored afterwards. Deterministic cuBLAS needs an
    environment variable that is read when CUDA starts in this process. In a process that has used
    cuBLAS before, torch raises where it cannot be deterministic.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    precision = torch.get_float32_matmul_precision()
    workspace = os.environ.get(_CUBLAS)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            os.environ.setdefault(_CUBLAS, ":4096:8")
            torch.use_deterministic_algorithms(True)
            torch.set_float32_matmul_precision("highest")
            torch.manual_seed(seed)
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.set_float32_matmul_precision(precision)
            if workspace is None:
                os.environ.pop(_CUBLAS, None)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Turn off transformers' own progress bars; patchc reports progress by callback."""
    drawing = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawing:
            logging.enable_progress_bar()
