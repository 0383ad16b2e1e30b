"""Opens the device that a command computes on. Without a CUDA device, torch is never loaded."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TYPE_CHECKING

from patchc.errors import MissingExtraError, UsageError
from patchc.runtime.device_pool import DevicePool

if TYPE_CHECKING:
    import torch

_NAME = re.compile(r"auto|cpu|cuda(:\d{1,4})?")
_POOL: ContextVar[DevicePool | None] = ContextVar("pool", default=None)


@contextmanager
def computing_on(pool: DevicePool) -> Iterator[None]:
    """Let the commands of this thread compute on a pool, whatever their option says.

    For tests, which stage tensors on the host, and for measurements with other memory limits.
    """
    token = _POOL.set(pool)
    try:
        yield
    finally:
        _POOL.reset(token)


def device_name(device: object) -> str:
    """Check a device, and return its name; a ``torch.device`` goes by its own.

    Raises:
        UsageError: it is none that patchc computes on.
    """
    name = str(device)
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"device is {device!r:.80}; it must be auto, cpu, cuda, or one of several CUDA "
            "devices, such as cuda:1"
        )
    return name


def open_device(device: str | torch.device) -> DevicePool | None:
    """The device to compute on; None is the CPU. Loads torch only if there may be a device.

    Raises:
        UsageError: there is no such name, or no such CUDA device.
        MissingExtraError: CUDA is asked for by name, and torch or triton is not installed.
    """
    if pool := _POOL.get():
        return pool
    name = device_name(device)
    if name == "cpu" or (name == "auto" and not (_is_installed() and _has_driver())):
        return None
    if not _is_installed():
        from patchc.extras import install_command  # rarely needed, and slow to import

        raise MissingExtraError(
            f"device is {name}, and torch or triton is missing; install them with "
            f"`{install_command('gpu')}`, or take the CPU (--device cpu)"
        )
    import torch

    if torch.cuda.is_available():
        return DevicePool(check_number("cuda" if name == "auto" else name))
    if name == "auto":
        return None
    raise UsageError(
        f"device is {name} and torch sees no CUDA device; see that nvidia-smi lists one and that "
        "torch is a build with CUDA, or take the CPU (--device cpu)"
    )


def check_number(name: str) -> str:
    """Check that torch sees as many CUDA devices as the name of one needs, and return the name."""
    import torch

    count = torch.cuda.device_count()
    if int(name.partition(":")[2] or 0) >= count:
        raise UsageError(f"device is {name} and torch sees {count}, the first of which is cuda:0")
    return name


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
