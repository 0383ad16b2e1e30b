"""Opens a compact component on its base, and refuses recipes that need what it does not hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from patchc.checkpoint import Checkpoint
from patchc.checkpoint.refuse import COMPONENT_FILE
from patchc.dtypes import WEIGHT_DTYPES
from patchc.errors import MismatchError
from patchc.kernels.philox import retention_threshold
from patchc.recipe import MergeRecipe, Recipe
from patchc.recipe.safepatching import Score
from patchc.selection.candidates import NameFilter
from patchc.selection.compact.checkpoint import CompactCheckpoint
from patchc.selection.compact.description import (
    VALUES,
    Description,
    compact_scores_stem,
    read_description,
)
from patchc.selection.compact.holding import drawn
from patchc.selection.component_record import sample_digest

_AGAIN = "derive it again with --for this recipe"
_WHOLE = "derive whole models (without --for and --retain, or with --whole)"
_MOST_SHOWN = 4


def is_compact(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the folder of a compact component."""
    return os.path.lexists(Path(path) / COMPONENT_FILE)


@dataclass(frozen=True)
class CompactComponent:
    """A compact component, of a base that is open."""

    folder: Path
    base: Checkpoint
    description: Description

    @classmethod
    def open(cls, folder: str | os.PathLike[str], base: Checkpoint) -> CompactComponent:
        """Read what a component holds.

        Raises:
            CheckpointError: its description or the base cannot be read.
            MismatchError: it was derived from another base.
        """
        description = read_description(Path(folder))
        if description.base != sample_digest(base):
            raise MismatchError(
                f"{folder}: this compact component was derived from another base than "
                f"{base.path}; name that base, or derive it again"
            )
        return cls(Path(folder), base, description)

    def tuned(self) -> CompactCheckpoint:
        """Open the tuned weights.

        Raises:
            CheckpointError, UnsupportedInputError: a file is missing or malformed.
        """
        return self._read(VALUES, self.base if self.description.rest_unchanged else None)

    def scores(self, kind: Score) -> CompactCheckpoint:
        """Open the scores of a kind.

        Raises:
            CheckpointError, UnsupportedInputError: a file is missing or malformed.
        """
        return self._read(compact_scores_stem(kind), None)

    def check_component(self, name: str, recipe: Recipe) -> None:
        """Refuse a SafePatching recipe whose component looks at other entries than these.

        Raises:
            MismatchError: saying what is held and what to do.
        """
        own = self.description
        if recipe.rank_among == "all":
            raise self._refused(
                "its rank_among is 'all', so every entry is ranked",
                _WHOLE,
                "set rank_among to 'retained'",
            )
        if own.component != name:
            raise self._refused(
                f"SafePatching's {name} component retains others", _AGAIN, self._use()
            )
        if recipe.score not in own.scores:
            there = ", ".join(own.scores) or "none"
            raise self._refused(
                f"it ranks by {recipe.score} scores, and there are {there}",
                _AGAIN,
                f"set score to {own.scores[0]!r}" if own.scores else "",
            )
        self._check_draws(recipe.seed, recipe, lambda one: recipe.for_tensor(one).retain, "retain")

    def check_model(self, number: int, recipe: MergeRecipe) -> None:
        """Refuse a merge that looks at other entries of its model ``number`` than these.

        Raises:
            MismatchError: saying what is held and what to do.
        """
        own, name = self.description, f"model-{number}"
        if recipe.method != "dare":
            raise self._refused(f"{recipe.method} looks at every entry", _WHOLE, "take dare")
        if own.component != name:
            raise self._refused(f"{name} of a DARE merge retains others", _AGAIN, self._use())
        self._check_draws(recipe.seed, recipe, lambda _: recipe.share, "density")
        names = NameFilter(recipe.include, recipe.exclude)
        for tensor in self.base.tensors.values():
            absent = tensor.name not in own.tensors and not own.rest_unchanged
            if absent and tensor.dtype.name in WEIGHT_DTYPES and names.matches(tensor.name):
                raise self._refused(
                    f"tensor {tensor.name!r} takes part, of which nothing is held",
                    _AGAIN,
                    "exclude it",
                )

    def _check_draws(
        self, seed: int, recipe: Recipe | MergeRecipe, share: Callable[[str], float], key: str
    ) -> None:
        if seed != self.description.seed:
            raise self._refused(
                f"its seed is {seed}", _AGAIN, f"set seed to {self.description.seed}"
            )
        names = NameFilter(recipe.include, recipe.exclude)
        for name, held in self.description.tensors.items():
            asked = share(name)
            if names.matches(name) and _differ(asked, held.retain):
                raise self._refused(
                    f"its {key} is {asked:g} for tensor {name!r}, of which {held.retain:g} is held",
                    _AGAIN,
                    f"set {key} to {held.retain:g}",
                )

    def _use(self) -> str:
        name = self.description.component
        if name in ("se", "osm"):
            return f"name it as --{name} for safepatching"
        return f"name it as --tuned number {int(name.rpartition('-')[2]) + 1} for dare"

    def _refused(self, why: str, otherwise: str, remedy: str = "") -> MismatchError:
        own = self.description
        shares = sorted({f"{held.retain:g}" for held in own.tensors.values()})[:_MOST_SHOWN]
        return MismatchError(
            f"{self.folder}: this compact component holds the entries that {own.component} "
            f"retains with p = {', '.join(shares)} and seed {own.seed}, and no others. As to the "
            f"recipe, {why}; {f'{remedy}, or ' if remedy else ''}{otherwise}"
        )

    def _read(self, stem: str, rest: Checkpoint | None) -> CompactCheckpoint:
        own = self.description
        retentions = {
            name: drawn(own.component, name, own.seed, held.retain)
            for name, held in own.tensors.items()
        }
        return CompactCheckpoint(self.folder, stem, own.tensors, retentions, rest)


def _differ(one: float, other: float) -> bool:
    return retention_threshold(one) != retention_threshold(other)
