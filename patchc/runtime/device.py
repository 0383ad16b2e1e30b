"""Opens the device that a command computes on. Without a CUDA device, torch is never loaded."""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from typing import Literal, TypeAlias, get_args

from patchc.errors import MissingExtraError, UsageError
from patchc.runtime.device_pool import DevicePool

DeviceName = Literal["auto", "cpu", "cuda"]
Device: TypeAlias = DeviceName | DevicePool
"""A device by its name, or a pool that also says which card and how much of its memory."""

_TORCH = "install torch and triton (pip install 'patchc[gpu]'), or take the CPU (--device cpu)"


def open_device(device: Device) -> DevicePool | None:
    """The device to compute on; None is the CPU. Loads torch only if there may be a device.

    Raises:
        UsageError: there is no such name, or no CUDA device.
        MissingExtraError: CUDA is asked for by name, and torch or triton is not installed.
    """
    if isinstance(device, DevicePool):
        return device
    if device not in get_args(DeviceName):
        raise UsageError(f"device is {device!r}; it must be {', '.join(get_args(DeviceName))}")
    if device == "cpu" or (device == "auto" and not (_is_installed() and _has_driver())):
        return None
    if not _is_installed():
        raise MissingExtraError(f"device is cuda, and torch or triton is missing; {_TORCH}")
    import torch

    if torch.cuda.is_available():
        return DevicePool("cuda")
    if device == "auto":
        return None
    raise UsageError(
        "device is cuda and torch sees no CUDA device; see that nvidia-smi lists one and that "
        "torch is a build with CUDA, or take the CPU (--device cpu)"
    )


def _is_installed() -> bool:
    return find_spec("torch") is not None and find_spec("triton") is not None


def _has_driver() -> bool:
    """Whether the CUDA driver is there and counts at least one device; takes milliseconds."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return (
        driver.cuInit(0) == 0
        and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
        and count.value > 0
    )
