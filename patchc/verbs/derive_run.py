"""A run of ``derive``: its material, its plan, and its scratch folder, which outlives a kill."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from blake3 import blake3

from patchc.checkpoint import Checkpoint
from patchc.derivation.budget import Budget, process_memory
from patchc.derivation.derivation import (
    DirectionReport,
    Material,
    derive_directions,
    plan_directions,
)
from patchc.derivation.derive_options import DeriveOptions
from patchc.derivation.derive_plan import DerivePlan
from patchc.derivation.output import RECORD
from patchc.derivation.session import choose_device
from patchc.derivation.trainer import Layout
from patchc.errors import PatchcError, StorageError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.requests import PathLike
from patchc.evaluation.verdicts import Judge
from patchc.layered.scratch import Scratch, noted
from patchc.progress import Progress
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

    def written(self) -> tuple[str, ...]:
        """Name the directions that an interrupted run of the same call has written."""
        return tuple(
            direction
            for direction in self.options.folders
            if f"report-{direction}" in self._notes and (self.out / direction / RECORD).exists()
        )

    def gather(self, max_memory: int | None, max_device_memory: int | None) -> Material:
        """Make the material; see :func:`patchc.verbs.derive_material.gather`."""
        budget = self._budget(max_memory, max_device_memory)
        room = budget.device or budget.memory - process_memory()
        streams = self.base.nbytes + _BESIDE > room
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
            DeriveError, UnsupportedInputError: as the derivation.
        """
        budget = self._budget(max_memory, max_device_memory)
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
        return plan

    def derive(self, material: Material, plan: DerivePlan) -> tuple[DirectionReport, ...]:
        """Derive all directions.

        Scratch files are removed, unless the run is interrupted or the disk fails.

        Raises:
            DeriveError, UnsupportedInputError, UsageError, StorageError, InUseError: see the called
                functions.
        """
        assert self._layout is not None
        options = replace(self.options, optimizer=plan.optimizer)
        with ExitStack() as stack:
            scratch = None
            if self._layout.streams:
                scratch = stack.enter_context(Scratch(self._folder, self._fingerprint))
                scratch.note(optimizer=plan.optimizer)
            try:
                done = derive_directions(
                    self.base, material, self.out, options, self.progress, self._layout, scratch
                )
            except StorageError:
                raise
            except PatchcError:
                # It would fail again in the same way.
                if scratch is not None:
                    scratch.remove()
                raise
            if scratch is not None:
                scratch.remove()
        return done

    def _budget(self, max_memory: int | None, max_device_memory: int | None) -> Budget:
        device = choose_device(self.options.device)
        return Budget.of(max_memory, max_device_memory, self._folder, device)

    @cached_property
    def _folder(self) -> Path:
        """The scratch folder of this output."""
        out = self.out.resolve()
        digest = blake3(str(out).encode()).hexdigest(length=4)
        folder = out.parent if self.scratch is None else Path(self.scratch)
        return folder / f"{out.name[:100]}.patchc-scratch-{digest}"

    @cached_property
    def _notes(self) -> dict[str, Any]:
        """What an interrupted run of the same call has noted."""
        return noted(self._folder, self._fingerprint)

    @cached_property
    def _fingerprint(self) -> Mapping[str, Any]:
        """What the derivation depends on. Files of the base go by their stamps."""
        shards = {
            name: [shard.size, shard.path.stat().st_mtime_ns]
            for name, shard in self.base.shards.items()
        }
        return {
            "base": [str(self.base.path.resolve()), shards],
            "inputs": self.inputs.record,
            "options": self.options.to_json(),
            "judge": EvaluateOptions(judge=self.judge).judge_name,
            "device": choose_device(self.options.device).type,
            "versions": [__version__, torch.__version__, transformers.__version__],
        }
