"""A run of ``derive``: its material, its plan, and its scratch folder, which outlives a kill."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import transformers
from blake3 import blake3

from patchc.checkpoint import Checkpoint
from patchc.derivation.budget import Budget, process_memory
from patchc.derivation.derivation import derive_directions, plan_directions
from patchc.derivation.derive_options import DeriveOptions
from patchc.derivation.derive_plan import DerivePlan
from patchc.derivation.direction import Material
from patchc.derivation.direction_report import DirectionReport
from patchc.derivation.session import choose_device
from patchc.derivation.trainer import Layout
from patchc.errors import (
    DeriveError,
    NumericError,
    OutputError,
    StorageError,
    UnsupportedInputError,
)
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.verdicts import Judge
from patchc.layered.scratch import Scratch, noted
from patchc.output_checks import check_place, nearest_folder
from patchc.paths import PathLike
from patchc.progress import Progress
from patchc.reserved import output_of
from patchc.selection.component_record import RECORD
from patchc.system_errors import storage_errors
from patchc.verbs.derive_inputs import Inputs
from patchc.verbs.derive_material import gather
from patchc.version import __version__

_BESIDE = 400 << 20
"""Memory for replies beside the weights: states, keys and values, logits."""


@dataclass
class Run:
    """One call of :func:`patchc.derive`.

    Attributes:
        base: the open base.
        inputs: the content of the files.
        out: the folder for the directions.
        options: how to derive.
        judge: decides which of the base's replies are refusals.
        scratch: the folder that is to hold the scratch folder; None for that of ``out``.
        progress: called with what is done.
    """

    base: Checkpoint
    inputs: Inputs
    out: Path
    options: DeriveOptions
    judge: str | Judge
    scratch: PathLike | None
    progress: Progress
    _layout: Layout | None = None
    _asks_streamed: bool = False

    def written(self) -> tuple[str, ...]:
        """Name the directions that an interrupted run of the same call has written."""
        return tuple(
            direction
            for direction in self.options.folders
            if f"report-{direction}" in self._notes and (self.out / direction / RECORD).exists()
        )

    def check_scratch(self, inputs: tuple[Path, ...]) -> None:
        """Refuse scratch files where none can be, in an input or in a folder to be written.

        Raises:
            OutputError: naming the folder and the reason.
            StorageError: the path cannot be looked at.
        """
        what, written = "scratch folder", [self.out / name for name in self.options.folders]
        check_place(self._folder, inputs, what)
        if self._folder.is_symlink() or (self._folder.exists() and not self._folder.is_dir()):
            raise OutputError(
                f"{self._folder} is in the way: patchc did not make it; move it away, or name "
                "another folder with scratch"
            )
        with storage_errors(self._folder, "reach"):
            place = Path(os.path.realpath(self._folder))
        for folder in written:
            if place.is_relative_to(os.path.realpath(folder)):
                raise OutputError(
                    f"{what} {self._folder} lies inside the output {folder}; choose another path"
                )

    def gather(self, max_memory: int | None, max_device_memory: int | None) -> Material:
        """Make the material; see :func:`patchc.verbs.derive_material.gather`."""
        budget = self._budget(max_memory, max_device_memory)
        room = budget.device or budget.memory - process_memory()
        # Logits that are computed in blocks may differ in their last bits, and so may a reply: what
        # an interrupted run has learnt from must be what this one learns from.
        self._asks_streamed = self._notes.get("asks_streamed", self.base.nbytes + _BESIDE > room)
        streams = self._asks_streamed
        return gather(self.base, self.inputs, self.options, self.judge, streams, self.progress)

    def plan(
        self,
        material: Material,
        max_memory: int | None,
        max_device_memory: int | None,
        output_bytes: int,
        measures: bool,
    ) -> DerivePlan:
        """Plan the derivation; one that was interrupted keeps its optimizer and its files.

        Raises:
            UsageError, StorageError: the budget is too small.
            OutputError: there must be scratch files, and there cannot be.
            DeriveError, UnsupportedInputError: as the derivation.
        """
        budget = self._budget(max_memory, max_device_memory)
        places = nearest_folder(self.out), nearest_folder(self._folder)
        if places[0].stat().st_dev == places[1].stat().st_dev:
            budget = replace(budget, room=max(0, budget.room - output_bytes))
        optimizer = self._notes.get("optimizer", self.options.optimizer)
        self._layout, plan = plan_directions(
            self.base,
            material,
            replace(self.options, optimizer=optimizer),
            budget,
            output_bytes,
            measures,
            streams=bool(self._notes),
        )
        if self._layout.streams:
            self.check_scratch(())
        return plan

    def derive(self, material: Material, plan: DerivePlan) -> tuple[DirectionReport, ...]:
        """Derive all directions.

        Scratch files are removed, unless the run is interrupted, or fails as it may not fail again.

        Raises:
            DeriveError, UnsupportedInputError, UsageError, StorageError, InUseError: see the called
                functions.
            KeyboardInterrupt: as it came, with a message where the same call goes on.
        """
        assert self._layout is not None
        options = replace(self.options, optimizer=plan.optimizer)
        run = partial(derive_directions, self.base, material, self.out, options, self.progress)
        if not self._layout.streams:
            if self._folder.is_dir() and not self._folder.is_symlink():
                # Left by a run with other options.
                with Scratch(self._folder, self._fingerprint) as scratch:
                    scratch.remove()
            return run(self._layout)
        with Scratch(self._folder, self._fingerprint) as scratch:
            try:
                scratch.note(optimizer=plan.optimizer, asks_streamed=self._asks_streamed)
                done = run(self._layout, scratch)
                scratch.remove()
            except (DeriveError, NumericError, UnsupportedInputError):
                scratch.remove()  # it would fail again in the same way
                raise
            except StorageError as error:
                raise StorageError(f"{error}; {self._kept}") from error
            except KeyboardInterrupt as interrupt:
                raise KeyboardInterrupt(self._kept) from interrupt
        return done

    @property
    def _kept(self) -> str:
        return f"{self._folder} keeps what is done, and the same command, run again, goes on"

    def _budget(self, max_memory: int | None, max_device_memory: int | None) -> Budget:
        device = choose_device(self.options.device)
        return Budget.of(max_memory, max_device_memory, self._folder, device)

    @cached_property
    def _folder(self) -> Path:
        return scratch_folder(self.out, self.scratch)

    @cached_property
    def _notes(self) -> dict[str, Any]:
        """What an interrupted run of the same call has noted."""
        return noted(self._folder, self._fingerprint)

    @cached_property
    def _fingerprint(self) -> Mapping[str, Any]:
        """What the derivation depends on. Files of the base go by their stamps."""
        states = {path.name: path.stat() for path in self.base.path.iterdir() if path.is_file()}
        files = {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()}
        return {
            "base": [str(self.base.path.resolve()), files],
            "inputs": self.inputs.record,
            "options": self.options.to_json(),
            "judge": EvaluateOptions(judge=self.judge).judge_name,
            "device": choose_device(self.options.device).type,
            "versions": [__version__, torch.__version__, transformers.__version__],
        }


def scratch_folder(out: Path, scratch: PathLike | None) -> Path:
    """Return the folder for scratch files of an output: in ``scratch``, or beside the output.

    A caller that gives ``out`` its name later finds the same folder again, under the later name.
    """
    out = output_of(Path(os.path.realpath(out)))
    digest = blake3(os.fsencode(out)).hexdigest(length=4)
    folder = out.parent if scratch is None else Path(scratch)
    return folder / f"{out.name[:50]}.patchc-scratch-{digest}"
