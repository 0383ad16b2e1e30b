"""The parameters of a fix: those of its stages, and what they share. They need no torch.

SafePatching builds from a safety enhancement (SE) component, an over-safety mitigation (OSM)
component, or both.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from patchc.derivation.derive_options import DeriveOptions, Objective
from patchc.derivation.for_recipe import options_for
from patchc.errors import UsageError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.requests import SetName
from patchc.fitting.fit_options import FitOptions
from patchc.recipe import MergeRecipe, Recipe, checks
from patchc.selection.compact.holding import retains_alone
from patchc.selection.safepatching.inputs import components_read
from patchc.verbs.derive_inputs import TAKES

DENSITY = 0.01
"""Share of the entries that the objective "margin" tunes and its patch changes."""

DEFAULT_RECIPES: dict[Objective, Recipe | MergeRecipe] = {
    "margin": MergeRecipe("dare", density=DENSITY, rescale=False),
    "refusals": Recipe(sets="se"),
    "npo": Recipe(sets="se"),
    "answers": Recipe(sets="osm"),
    "pair": Recipe(),
}
"""By objective, the recipe that suits what it derives."""


@dataclass(frozen=True)
class FixOptions:
    """How requests become a tested patch.

    Attributes:
        derive: objective and tuning.
        recipe: how the patch is made from the derived change, with the scales that the fit starts
            from. None means ``dare`` at :data:`DENSITY`, not rescaled, for "margin"; SafePatching
            with one component for "refusals", "npo" and "answers", and with both for "pair".
        fit: how the scales are fitted.
        asking: how to ask and judge, in every stage. Its ``limit`` keeps the first requests of each
            file, before any split.
        test_share: share of the requests that the test gets, in (0, 1).
        seed: the seed of the split, the derivation, the retention draws and the fit, in place of
            the seeds of ``derive``, ``recipe`` and ``fit``. Whole, below 2**64.

    Raises:
        UsageError: a parameter is of the wrong type or out of range, or the recipe needs what the
            objective does not derive.
    """

    derive: DeriveOptions = field(
        default_factory=lambda: DeriveOptions(objective="margin", precision="bfloat16")
    )
    recipe: Recipe | MergeRecipe | None = None
    fit: FitOptions = field(default_factory=FitOptions)
    asking: EvaluateOptions = field(default_factory=EvaluateOptions)
    test_share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        checks.seed("seed", self.seed)
        if not 0.0 < checks.number("test_share", self.test_share) < 1.0:
            raise UsageError(f"test_share is {self.test_share}; it must lie between 0 and 1")
        if self.asking.lm_eval:
            raise UsageError("lm_eval is not a part of a fix; run `patchc evaluate` on the result")
        self._check_recipe()
        _ = self.deriving

    @property
    def deriving(self) -> DeriveOptions:
        """``derive`` with the seed and what follows from the recipe.

        A merge reads no scores. If it keeps drawn entries without rescaling them, the objective
        "margin" tunes only these entries, so that the patch loses nothing that was learned. What is
        derived is compact, unless the recipe looks at every entry.
        """
        recipe, options = self.merging, replace(self.derive, seed=self.seed)
        if isinstance(recipe, MergeRecipe):
            options = replace(options, scores=())
        return options_for(options, recipe) if retains_alone(recipe) else options

    @property
    def derived_from(self) -> tuple[SetName, ...]:
        """The sets whose requests the derivation takes, if there are any."""
        sets = TAKES[self.derive.objective]
        return (*sets, "utility") if self.derive.weight_of_anchor else sets

    @property
    def merging(self) -> Recipe | MergeRecipe:
        """The recipe in use, with the seed if it draws."""
        recipe = self.recipe or DEFAULT_RECIPES[self.derive.objective]
        if isinstance(recipe, MergeRecipe) and recipe.method != "dare":
            return recipe
        return replace(recipe, seed=self.seed)

    @property
    def fitting(self) -> FitOptions:
        """``fit`` with the seed."""
        return replace(self.fit, seed=self.seed)

    @property
    def speaking(self) -> EvaluateOptions:
        """``asking`` for requests to which the limit has been applied."""
        return replace(self.asking, limit=None)

    def models(self, derived: Path) -> dict[str, Any]:
        """Return the folders below ``derived``, as arguments of :func:`patchc.fit`."""
        if isinstance(self.merging, MergeRecipe):
            return {"tuned": [derived / name for name in self.derive.folders]}
        return {name: derived / self._components[name] for name in components_read(self.merging)}

    @property
    def _components(self) -> dict[str, str]:
        """The derived folder that serves as each component of SafePatching."""
        return {"se" if name == "margin" else name: name for name in self.derive.folders}

    def _check_recipe(self) -> None:
        recipe = self.merging
        if isinstance(recipe, MergeRecipe):
            recipe.check_models(len(self.derive.folders))
            return
        derived = list(self._components)
        missing = [name for name in components_read(recipe) if name not in derived]
        if missing:
            raise UsageError(
                f"the recipe's sets are {recipe.sets!r} and objective {self.derive.objective} "
                f"derives no {missing[0]}; take sets {derived[0]!r}, or another objective"
            )
        if recipe.score not in self.derive.scores:
            raise UsageError(
                f"the recipe ranks by {recipe.score} scores, and {', '.join(self.derive.scores)} "
                "are derived; make them the same"
            )
