"""patchc: a compiler for weight patches.

The verbs of the command line are functions here: :func:`fix`, :func:`derive`, :func:`build`,
:func:`diff`, :func:`apply`, :func:`revert`, :func:`verify`, :func:`inspect`, :func:`fold`,
:func:`evaluate`, :func:`sweep`, :func:`fit`. :func:`chain` compares patches that follow one
another, and :func:`open_patch` reads a patch file. Names are imported on first use, so that
importing this package costs nothing. :mod:`patchc.torch` changes loaded models.
"""

from __future__ import annotations

from importlib import import_module

from patchc.version import __version__ as __version__

TYPE_CHECKING = False  # typing takes as long to import as all the rest here
if TYPE_CHECKING:
    from patchc.derivation.derive_options import DeriveOptions as DeriveOptions
    from patchc.errors import PatchcError as PatchcError
    from patchc.evaluation.evaluate_options import EvaluateOptions as EvaluateOptions
    from patchc.fitting.fit_options import FitOptions as FitOptions
    from patchc.fitting.fit_options import Limit as Limit
    from patchc.fixing.fix import fix as fix
    from patchc.fixing.fix_options import FixOptions as FixOptions
    from patchc.formats import open_patch as open_patch
    from patchc.recipe import MergeRecipe as MergeRecipe
    from patchc.recipe import Recipe as Recipe
    from patchc.recipe import read_recipe as read_recipe
    from patchc.verbs.apply import apply as apply
    from patchc.verbs.build import build as build
    from patchc.verbs.chain import chain as chain
    from patchc.verbs.derive import derive as derive
    from patchc.verbs.diff import diff as diff
    from patchc.verbs.evaluate import evaluate as evaluate
    from patchc.verbs.fit import fit as fit
    from patchc.verbs.fold import fold as fold
    from patchc.verbs.inspect import inspect as inspect
    from patchc.verbs.revert import revert as revert
    from patchc.verbs.sweep import sweep as sweep
    from patchc.verbs.verify import verify as verify

_HOMES = {
    "DeriveOptions": "patchc.derivation.derive_options",
    "EvaluateOptions": "patchc.evaluation.evaluate_options",
    "FitOptions": "patchc.fitting.fit_options",
    "FixOptions": "patchc.fixing.fix_options",
    "Limit": "patchc.fitting.fit_options",
    "MergeRecipe": "patchc.recipe",
    "PatchcError": "patchc.errors",
    "Recipe": "patchc.recipe",
    "apply": "patchc.verbs.apply",
    "build": "patchc.verbs.build",
    "chain": "patchc.verbs.chain",
    "derive": "patchc.verbs.derive",
    "diff": "patchc.verbs.diff",
    "evaluate": "patchc.verbs.evaluate",
    "fit": "patchc.verbs.fit",
    "fix": "patchc.fixing.fix",
    "fold": "patchc.verbs.fold",
    "inspect": "patchc.verbs.inspect",
    "open_patch": "patchc.formats",
    "read_recipe": "patchc.recipe",
    "revert": "patchc.verbs.revert",
    "sweep": "patchc.verbs.sweep",
    "verify": "patchc.verbs.verify",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    if name == "torch":
        return import_module("patchc.torch")
    if name not in _HOMES:
        raise AttributeError(f"module 'patchc' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
