"""What a derivation may take, and the choice of a way that fits."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from patchc.derivation.budget import Budget, process_memory, usable_memory
from patchc.derivation.memory_plan import Need
from patchc.derivation.trainer import Layout
from patchc.derivation.ways import choose
from patchc.errors import StorageError, UsageError

CPU = torch.device("cpu")
WHOLE = Need(Layout(), "adamw", 1000, 0, 0, 0)
STREAMED = Need(Layout(streams=True, keeps=False), "adamw", 400, 0, 700, 900)
EIGHT_BIT = replace(STREAMED, optimizer="adamw8bit", memory_bytes=450, scratch_bytes=300)
LARGER = replace(EIGHT_BIT, scratch_bytes=350)
WAYS = [WHOLE, STREAMED, EIGHT_BIT, LARGER]
DISK = Budget(memory=1000, device=0, scratch=Path("there"), room=700, scratch_is_memory=False)


@pytest.mark.parametrize(
    ("budget", "way"),
    [
        (DISK, WHOLE),
        (replace(DISK, memory=999), STREAMED),
        (replace(DISK, memory=400), STREAMED),
        (replace(DISK, memory=999, room=699), EIGHT_BIT),
        (replace(DISK, memory=999, scratch_is_memory=True), EIGHT_BIT),
        (replace(DISK, memory=1000, room=0), WHOLE),
    ],
)
def test_the_first_way_that_fits_is_taken(budget: Budget, way: Need) -> None:
    assert choose(WAYS, budget) == way


def test_too_little_memory_names_what_suffices() -> None:
    with pytest.raises(UsageError, match=r"needs at least 67,109,264 bytes .* may take 399;"):
        choose(WAYS, replace(DISK, memory=399))
    with pytest.raises(UsageError, match=r"at least 67,109,614 .* a folder on a disk with scratch"):
        choose(WAYS, replace(DISK, memory=749, scratch_is_memory=True))
    on_device = [replace(way, device_bytes=50) for way in WAYS]
    message = r"max_memory\) and 50 bytes of the device's .* may take 1,000 and 49;"
    with pytest.raises(UsageError, match=message):
        choose(on_device, replace(DISK, device=49))


def test_too_little_room_for_scratch_files_names_both() -> None:
    message = r"needs 300 bytes of scratch files, and 299 are free for them in there; free space, "
    with pytest.raises(StorageError, match=message):
        choose(WAYS, replace(DISK, memory=999, room=299))


def test_a_budget_is_what_is_named_or_a_share_of_what_is_free(tmp_path: Path) -> None:
    scratch = tmp_path / "not/there/yet"
    named = Budget.of(10**9, 10**6, scratch, CPU)
    assert (named.memory, named.device, named.scratch) == (10**9, 10**6, scratch)
    free = Budget.of(None, None, scratch, CPU)
    assert process_memory() < free.memory < usable_memory()
    assert free.device == 0


def test_what_lies_in_the_scratch_folder_is_free_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=50)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert Budget.of(1, 1, tmp_path, CPU).room == 50
    (tmp_path / "states").write_bytes(b"s" * 5000)
    held = (tmp_path / "states").stat().st_blocks * 512
    assert Budget.of(1, 1, tmp_path, CPU).room == 50 + held >= 5050


def test_a_folder_in_memory_counts_as_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path.stat()
    device = f"{os.major(state.st_dev)}:{os.minor(state.st_dev)}"
    read = Path.read_text

    def mounted(kind: str) -> bool:
        lines = (
            f"1 2 0:0 / /elsewhere rw - tmpfs none rw\n3 4 {device} / / rw shared:1 - {kind} x rw\n"
        )

        def reads(path: Path) -> str:
            return lines if path == Path("/proc/self/mountinfo") else read(path)

        monkeypatch.setattr(Path, "read_text", reads)
        return Budget.of(None, None, tmp_path / "scratch", CPU).scratch_is_memory

    assert [mounted(kind) for kind in ("tmpfs", "ramfs", "ext4")] == [True, True, False]


def test_the_systems_own_folder_in_memory_is_known() -> None:
    assert Budget.of(1, 1, Path("/dev/shm/scratch"), CPU).scratch_is_memory
