"""Which entries compact components hold: those that all builds of a recipe's kind retain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchc.errors import UsageError
from patchc.kernels.philox import Retention, retention_stream, retention_threshold
from patchc.recipe import MergeRecipe, Override, Recipe

ONLY_RETAINED = "derive without --for or --retain, which writes whole models"


@dataclass(frozen=True)
class Holding:
    """The retained entries of a derivation's components.

    Attributes:
        merge: whether the first, second … model of a DARE merge retains them; otherwise the
            components of SafePatching do.
        seed: of the draws.
        retain: the share p of the entries.
        overrides: expressions over tensor names with another p; where several match, the later one
            wins.
    """

    merge: bool
    seed: int
    retain: float
    overrides: tuple[Override, ...] = ()

    @classmethod
    def of(cls, recipe: Recipe | MergeRecipe) -> Holding:
        """Find what builds of a recipe retain.

        Raises:
            UsageError: they look at other entries too.
        """
        if isinstance(recipe, MergeRecipe):
            if recipe.method != "dare":
                raise UsageError(
                    f"the recipe's method is {recipe.method}, which looks at every entry, and a "
                    f"compact component holds the retained ones alone; take dare, or "
                    f"{ONLY_RETAINED}"
                )
            return cls(True, recipe.seed, recipe.share)
        if recipe.rank_among == "all":
            raise UsageError(
                "the recipe's rank_among is 'all', which ranks every entry, and a compact "
                "component holds the retained ones alone; take rank_among 'retained', or "
                f"{ONLY_RETAINED}"
            )
        overrides = tuple(
            Override(one.match, retain=one.retain)
            for one in recipe.overrides
            if one.retain is not None
        )
        return cls(False, recipe.seed, recipe.retain, overrides)

    @property
    def everything(self) -> bool:
        """Whether every entry is retained, so that nothing is left out."""
        return self.retain == 1 and all(one.retain == 1 for one in self.overrides)

    def share(self, tensor: str) -> float:
        """The p of a tensor."""
        found = [one.retain for one in self.overrides if one.matches(tensor)]
        return self.retain if not found or found[-1] is None else found[-1]

    def component(self, direction: str, directions: Sequence[str]) -> str:
        """The name by which the entries of one direction among several are drawn."""
        if self.merge:
            return f"model-{directions.index(direction)}"
        return "se" if direction == "margin" else direction


def retains_alone(recipe: Recipe | MergeRecipe) -> bool:
    """Whether builds of a recipe look at the retained entries alone."""
    if isinstance(recipe, MergeRecipe):
        return recipe.method == "dare"
    return recipe.rank_among == "retained"


def drawn(component: str, tensor: str, seed: int, retain: float) -> Retention:
    """Which entries of a tensor a component retains."""
    return Retention(seed, retention_stream(component, tensor), retention_threshold(retain))
