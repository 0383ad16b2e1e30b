"""In which state a model is: the patch's base, its result, or something between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from patchc.checkpoint import Checkpoint
from patchc.formats import Patch
from patchc.patching.side_files import FileChanges
from patchc.patching.states import find_side, find_states
from patchc.progress import Progress
from patchc.runtime.workers import Workers
from patchc.sides import Side


@dataclass(frozen=True)
class ModelState:
    """What was found of each side.

    Attributes:
        tensors: the side whose tensors the model has; None where both sides have the same.
        chunks_at_base, chunks_at_result: changing chunks that hold the base, and the result.
        files_at_base, files_at_result: changing files, likewise.
    """

    tensors: Side | None
    chunks_at_base: int
    chunks_at_result: int
    files_at_base: int
    files_at_result: int

    @property
    def name(self) -> Literal["base", "patched", "partly patched"]:
        """The state in words; a patch that changes nothing finds its base."""
        at_base = self.chunks_at_base or self.files_at_base or self.tensors == "base"
        at_result = self.chunks_at_result or self.files_at_result or self.tensors == "result"
        if not at_result:
            return "base"
        return "partly patched" if at_base else "patched"


def find_state(patch: Patch, model: Checkpoint, workers: Workers, progress: Progress) -> ModelState:
    """Read all of a model and say in which state it is.

    Raises:
        WrongBaseError: naming the first tensor or file that is on neither side.
        ResultMismatchError: the patch's own digests contradict each other.
        UnsupportedInputError: the patch changes files and the model is one file.
    """
    files = FileChanges(patch, model)
    side = None if patch.index.keeps_tensors else find_side(patch, model)
    found = find_states(patch, model, workers, progress)
    sides = list(files.states().values())
    files.check()
    return ModelState(
        side,
        found.chunks_at_base,
        found.chunks_at_result,
        sides.count("base"),
        sides.count("result"),
    )
