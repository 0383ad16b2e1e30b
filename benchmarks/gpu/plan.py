"""The parts of the run, most important first, for the machine that is there or for the rehearsal.

The limits add up to the whole run's nine minutes, less what finding and installing takes, so that
no part takes another's time; the last one gets what those before it leave.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu.timed_parts import Part
from gpu.wheels import Requirements

BENCHMARKS = Path(__file__).parents[1]
ROOT = BENCHMARKS.parent
TESTS = ROOT / "tests"
GIGABYTE = 10**9
WHOLE_MODEL = 13.5
"""Gigabytes of a 7B model in bf16."""
MEMORY_FOLDER = Path("/dev/shm")
IN_MEMORY = ("hot-patch", "streaming")
"""Parts that work on files in memory, where there is room."""
INTERPRETED = {"TRITON_INTERPRET": "1"}
NO_MORE: Mapping[str, str] = {}
LAYERS, LAYER, ENDS = 32, 202_383_360, 262_144_000
"""A Llama of 7B: layers, entries of one, and of embedding and head."""
STATE_BYTES = 12
"""Of each entry while it is derived: base 2, master 4, moments 2, gradient 4."""
MOST_LAYERS = 12
"""As many as are expected to take three steps of both directions within the part's limit."""


@dataclass(frozen=True)
class Machine:
    """What the plan depends on; without a device its name is empty."""

    device: str
    device_memory: int
    host_memory: int
    memory_folder: Path
    memory_room: int
    disk_room: int

    @staticmethod
    def find(device: str, device_memory: int, disk: Path) -> Machine:
        """The host's free memory and room, beside the device given."""
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        fields = dict(line.split(":") for line in lines)
        free = int(fields.get("MemAvailable", f"{free >> 10} kB").split()[0]) << 10
        disk_room = shutil.disk_usage(disk).free
        folder, room = disk, disk_room
        if MEMORY_FOLDER.is_dir():
            in_memory = min(shutil.disk_usage(MEMORY_FOLDER).free, int(0.8 * free))
            if in_memory >= GIGABYTE:
                folder, room = MEMORY_FOLDER, in_memory
        return Machine(device, device_memory, free, folder, room, disk_room)

    def model_gigabytes(self, copies: float) -> float:
        """The size of a base of which so many copies have room, at most that of a 7B model."""
        return round(min(WHOLE_MODEL, 0.9 * self.memory_room / copies / GIGABYTE), 2)

    def layers(self) -> int:
        """The layers of a 7B shape whose derivation the host's memory and disk hold."""
        room = 0.6 * self.host_memory + 0.7 * self.disk_room - STATE_BYTES * ENDS
        return max(1, min(LAYERS, MOST_LAYERS, int(room / (STATE_BYTES * LAYER))))


class Plan:
    """The parts; each has a folder for its figures in ``work`` and one for what it writes."""

    def __init__(self, machine: Machine, work: Path, path: list[str]) -> None:
        self._machine = machine
        self._work = work
        self._rehearsal = not machine.device
        self._needs = Requirements()
        inherited = filter(None, [os.environ.get("PYTHONPATH")])
        self._environment = {
            "PYTHONPATH": os.pathsep.join([str(ROOT), *path, str(BENCHMARKS), *inherited]),
            "PYTHONUNBUFFERED": "1",
        }

    def parts(self) -> list[Part]:
        return [
            self._tests(),
            self._kernels(),
            self._derivation(),
            self._hot_patch(),
            self._streaming(),
        ]

    def _tests(self) -> Part:
        environment = {"OMP_NUM_THREADS": "1"}
        if self._rehearsal:
            folder = TESTS / "kernels/tensors/test_snip.py"
            chosen = ["-m", "not gpu", str(folder)]
            environment |= INTERPRETED
        else:
            chosen = ["-m", "gpu", str(TESTS), "--continue-on-collection-errors", *self._workers()]
        plugin = ["-p", "gpu.pytest_figures", "--figures", str(self._figures("tests"))]
        # Another torch may warn of what this one does not: that is no failure of a kernel.
        options = ["-q", "-W", "default", "-p", "no:cacheprovider", *plugin, *chosen]
        needs = ["pytest", "hypothesis"]
        command = ["-m", "pytest", *options]
        return self._part("tests", TESTS, command, 150, needs=needs, environment=environment)

    def _workers(self) -> list[str]:
        xdist = next(one for one in self._needs.tests if one.name == "pytest-xdist")
        cores, memory = len(os.sched_getaffinity(0)), self._machine.device_memory
        workers = min(8, cores // 2, memory // (16 * GIGABYTE))
        return ["-n", str(workers)] if workers > 1 and xdist.held() else []

    def _kernels(self) -> Part:
        if not self._rehearsal:
            return self._benchmark("kernels", "kernels.py", [], 50)
        options = ["--entries", "8192", "--repeats", "1", "--device", "cpu"]
        return self._benchmark("kernels", "kernels.py", options, 50, environment=INTERPRETED)

    def _derivation(self) -> Part:
        machine = self._machine
        options = ["--steps", "3", "--folder", str(self._scratch("derivation"))]
        if self._rehearsal:
            options += ["--shape", "tiny", "--device", "cpu"]
        else:
            options += ["--shape", "7b", "--layers", str(machine.layers()), "--device", "cuda"]
            options += ["--max-memory", f"{0.6 * machine.host_memory / GIGABYTE:.0f}GB"]
            options += ["--max-device-memory", "8GB"]
        needs = [one.name for one in self._needs.derive]
        return self._benchmark("derivation", "derive_memory.py", options, 140, 60, needs)

    def _hot_patch(self) -> Part:
        size, repeats = self._machine.model_gigabytes(copies=2.1), "3"
        # The copy that measures the device's bandwidth takes 2 GiB beside the model.
        size = min(size, 0.9 * self._machine.device_memory / GIGABYTE - 2.2)
        if self._rehearsal:
            size, repeats = 0.02, "1"
        folder = self._scratch("hot-patch")
        options = ["--gigabytes", f"{size:.2f}", "--folder", str(folder), "--repeats", repeats]
        return self._benchmark("hot-patch", "hot_patch.py", options, 70)

    def _streaming(self) -> Part:
        size = 0.04 if self._rehearsal else self._machine.model_gigabytes(copies=4.4)
        options = ["--gigabytes", f"{size:.2f}", "--folder", str(self._scratch("streaming"))]
        options += ["--chunk-bits", "20", "22"]
        return self._benchmark("streaming", "device.py", options, 200, 60)

    def _benchmark(
        self,
        name: str,
        script: str,
        options: list[str],
        limit: float,
        least: float = 30,
        needs: Sequence[str] = (),
        environment: Mapping[str, str] = NO_MORE,
    ) -> Part:
        path = BENCHMARKS / script
        command = [str(path), *options, "--json", str(self._figures(name))]
        return self._part(name, path, command, limit, least, needs, environment)

    def _part(
        self,
        name: str,
        script: Path,
        command: list[str],
        limit: float,
        least: float = 30,
        needs: Sequence[str] = (),
        environment: Mapping[str, str] = NO_MORE,
    ) -> Part:
        return Part(
            name,
            (sys.executable, *command),
            script,
            limit,
            least,
            self._figures(name),
            self._scratch(name),
            tuple(one.name for one in self._needs.core) + tuple(needs),
            self._environment | environment,
        )

    def _figures(self, name: str) -> Path:
        return self._work / f"{name}.json"

    def _scratch(self, name: str) -> Path:
        base = self._machine.memory_folder if name in IN_MEMORY else self._work
        return base / f"{self._work.name}-{name}"
