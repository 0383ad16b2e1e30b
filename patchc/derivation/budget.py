"""The memory and the disk that a derivation may take."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from patchc.errors import UnsupportedSystemError
from patchc.output_checks import nearest_folder

_MEMORY_SHARE, _DEVICE_SHARE = 0.8, 0.9
"""Of what is free, the share that is taken where no budget is named."""
_IN_MEMORY = ("tmpfs", "ramfs")


@dataclass(frozen=True)
class Budget:
    """What may be taken.

    Attributes:
        memory: bytes of the process on the host.
        device: bytes on the device.
        scratch: the folder for scratch files.
        room: bytes that are free there.
        scratch_is_memory: whether its file system is kept in memory.
    """

    memory: int
    device: int
    scratch: Path
    room: int
    scratch_is_memory: bool

    @classmethod
    def of(
        cls,
        max_memory: int | None,
        max_device_memory: int | None,
        scratch: Path,
        device: torch.device,
    ) -> Budget:
        """Make a budget of what is named, and of shares of what is free where nothing is."""
        free_on_device = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
        place = nearest_folder(scratch)
        return cls(
            int(_MEMORY_SHARE * usable_memory()) if max_memory is None else max_memory,
            int(_DEVICE_SHARE * free_on_device) if max_device_memory is None else max_device_memory,
            scratch,
            shutil.disk_usage(place).free + _held_by(scratch),
            _file_system(place) in _IN_MEMORY,
        )


def process_memory() -> int:
    """Return the bytes that this process has in memory, mapped files included.

    Raises:
        UnsupportedSystemError: the system does not tell.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError as error:
        raise UnsupportedSystemError(
            "this system has no /proc, which tells how much memory is taken; derive and fit on "
            "Linux"
        ) from error
    return pages * os.sysconf("SC_PAGE_SIZE")


def usable_memory() -> int:
    """Return the bytes that this process has, and may still take, on this machine."""
    available = 1 << 62
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) << 10
    usable = available + process_memory()
    with suppress(OSError, ValueError):
        usable = min(usable, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return usable


def _held_by(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def _file_system(place: Path) -> str:
    """Return the kind of the file system that holds an existing folder."""
    found = ""
    with suppress(OSError):
        number = place.stat().st_dev
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split(" ")
            if fields[2] == f"{os.major(number)}:{os.minor(number)}":
                found = fields[fields.index("-") + 1]
    return found
