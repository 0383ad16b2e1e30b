"""patchc: a compiler for weight patches.

The verbs of the command line are functions here: :func:`fix`, :func:`derive`, :func:`build`,
:func:`diff`, :func:`apply`, :func:`revert`, :func:`verify`, :func:`inspect`, :func:`status`,
:func:`report`, :func:`fold`, :func:`annotate`, :func:`keygen`, :func:`sign`, :func:`evaluate`,
:func:`sweep`, :func:`fit`. :func:`chain` compares patches that follow one another, and
:func:`open_patch` reads a patch file. Each verb returns a frozen report of its own, such as
:class:`BuildReport`, and raises subclasses of :class:`PatchcError`; all of them, and the types of
the reports' fields, are here.
:mod:`patchc.torch` changes loaded models.

Names are imported on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module

from patchc.version import __version__ as __version__

TYPE_CHECKING = False  # typing takes as long to import as all the rest here
if TYPE_CHECKING:
    from patchc.checkpoint.left_aside import LeftAside as LeftAside
    from patchc.derivation.derive_options import DeriveOptions as DeriveOptions
    from patchc.derivation.derive_options import TuneOptions as TuneOptions
    from patchc.derivation.derive_plan import DerivePlan as DerivePlan
    from patchc.derivation.direction_report import DirectionReport as DirectionReport
    from patchc.errors import AlreadyPatchedError as AlreadyPatchedError
    from patchc.errors import CheckpointError as CheckpointError
    from patchc.errors import CodeError as CodeError
    from patchc.errors import DeriveError as DeriveError
    from patchc.errors import EvaluateError as EvaluateError
    from patchc.errors import InUseError as InUseError
    from patchc.errors import MismatchError as MismatchError
    from patchc.errors import MissingCheckpointError as MissingCheckpointError
    from patchc.errors import MissingConversationsError as MissingConversationsError
    from patchc.errors import MissingExtraError as MissingExtraError
    from patchc.errors import MissingInputError as MissingInputError
    from patchc.errors import MissingKeyError as MissingKeyError
    from patchc.errors import MissingPatchError as MissingPatchError
    from patchc.errors import MissingRequestsError as MissingRequestsError
    from patchc.errors import MissingScoresError as MissingScoresError
    from patchc.errors import NotPatchedError as NotPatchedError
    from patchc.errors import NumericError as NumericError
    from patchc.errors import OutputError as OutputError
    from patchc.errors import PartlyPatchedError as PartlyPatchedError
    from patchc.errors import PatchcError as PatchcError
    from patchc.errors import PatchFormatError as PatchFormatError
    from patchc.errors import RankError as RankError
    from patchc.errors import ResultMismatchError as ResultMismatchError
    from patchc.errors import SideFileError as SideFileError
    from patchc.errors import SignatureError as SignatureError
    from patchc.errors import StorageError as StorageError
    from patchc.errors import UnfixedError as UnfixedError
    from patchc.errors import UnsupportedInputError as UnsupportedInputError
    from patchc.errors import UnsupportedPatchError as UnsupportedPatchError
    from patchc.errors import UnsupportedSystemError as UnsupportedSystemError
    from patchc.errors import UsageError as UsageError
    from patchc.errors import WrongBaseError as WrongBaseError
    from patchc.evaluation.evaluate_options import EvaluateOptions as EvaluateOptions
    from patchc.evaluation.measure import Evaluation as Evaluation
    from patchc.evaluation.paired import Change as Change
    from patchc.evaluation.rates import Rate as Rate
    from patchc.evaluation.summary import ModelSummary as ModelSummary
    from patchc.evaluation.summary import ResultsSummary as ResultsSummary
    from patchc.evaluation.trials import Trial as Trial
    from patchc.evaluation.turns import Together as Together
    from patchc.evaluation.turns import TurnsReport as TurnsReport
    from patchc.fitting.choice import Candidate as Candidate
    from patchc.fitting.fit_options import FitOptions as FitOptions
    from patchc.fitting.fit_options import Limit as Limit
    from patchc.fitting.fitted import Fitted as Fitted
    from patchc.fitting.search import Range as Range
    from patchc.fixing.fix import fix as fix
    from patchc.fixing.fix_options import FixOptions as FixOptions
    from patchc.fixing.fix_report import Comparison as Comparison
    from patchc.fixing.fix_report import Development as Development
    from patchc.fixing.fix_report import Figures as Figures
    from patchc.fixing.fix_report import FixReport as FixReport
    from patchc.fixing.fix_report import Point as Point
    from patchc.fixing.split import SetSplit as SetSplit
    from patchc.formats import AdditiveComponent as AdditiveComponent
    from patchc.formats import AdditiveValues as AdditiveValues
    from patchc.formats import Patch as Patch
    from patchc.formats import open_patch as open_patch
    from patchc.formats.change_bits import ChangeBits as ChangeBits
    from patchc.hub_models import allow_downloads as allow_downloads
    from patchc.landscapes.curves import Curve as Curve
    from patchc.landscapes.curves import CurvePoint as CurvePoint
    from patchc.landscapes.curves import HalfWidth as HalfWidth
    from patchc.landscapes.curves import Landscape as Landscape
    from patchc.landscapes.curves import Plane as Plane
    from patchc.landscapes.landscape_options import LandscapeOptions as LandscapeOptions
    from patchc.patching.apply_report import ApplyReport as ApplyReport
    from patchc.patching.code_files import CodeFile as CodeFile
    from patchc.patching.code_files import CodeReport as CodeReport
    from patchc.patching.foreign_names import NameNote as NameNote
    from patchc.patching.left_alone import SideFile as SideFile
    from patchc.patching.merge_options import MergeReport as MergeReport
    from patchc.patching.side_files import SideFileChange as SideFileChange
    from patchc.progress import Progress as Progress
    from patchc.progress import ProgressEvent as ProgressEvent
    from patchc.recipe import MergeOverride as MergeOverride
    from patchc.recipe import MergeRecipe as MergeRecipe
    from patchc.recipe import Override as Override
    from patchc.recipe import Recipe as Recipe
    from patchc.recipe import read_recipe as read_recipe
    from patchc.report_page.report import PageReport as PageReport
    from patchc.report_page.report import report as report
    from patchc.selection.compact.holding import Holding as Holding
    from patchc.signing.check import CheckedSignature as CheckedSignature
    from patchc.signing.check import SignatureReport as SignatureReport
    from patchc.signing.policy import SigningPolicy as SigningPolicy
    from patchc.signing.trust import PolicyAnswer as PolicyAnswer
    from patchc.signing.trust import Trust as Trust
    from patchc.verbs.annotate import AnnotateReport as AnnotateReport
    from patchc.verbs.annotate import annotate as annotate
    from patchc.verbs.annotation import Annotation as Annotation
    from patchc.verbs.apply import apply as apply
    from patchc.verbs.build import build as build
    from patchc.verbs.build_plan import BuildPlan as BuildPlan
    from patchc.verbs.chain import ChainReport as ChainReport
    from patchc.verbs.chain import Link as Link
    from patchc.verbs.chain import chain as chain
    from patchc.verbs.derive import DeriveReport as DeriveReport
    from patchc.verbs.derive import derive as derive
    from patchc.verbs.diff import diff as diff
    from patchc.verbs.evaluate import EvaluateReport as EvaluateReport
    from patchc.verbs.evaluate import evaluate as evaluate
    from patchc.verbs.fit import FitReport as FitReport
    from patchc.verbs.fit import fit as fit
    from patchc.verbs.fold import fold as fold
    from patchc.verbs.inspect import ChangeCounts as ChangeCounts
    from patchc.verbs.inspect import InspectReport as InspectReport
    from patchc.verbs.inspect import MaskReport as MaskReport
    from patchc.verbs.inspect import inspect as inspect
    from patchc.verbs.keygen import KeygenReport as KeygenReport
    from patchc.verbs.keygen import keygen as keygen
    from patchc.verbs.landscape import LandscapeReport as LandscapeReport
    from patchc.verbs.landscape import landscape as landscape
    from patchc.verbs.model_card import model_card as model_card
    from patchc.verbs.patch_reports import BuildReport as BuildReport
    from patchc.verbs.patch_reports import DiffReport as DiffReport
    from patchc.verbs.patch_reports import FoldReport as FoldReport
    from patchc.verbs.patch_reports import PatchReport as PatchReport
    from patchc.verbs.revert import revert as revert
    from patchc.verbs.sign import SignReport as SignReport
    from patchc.verbs.sign import sign as sign
    from patchc.verbs.sign_model import SignModelReport as SignModelReport
    from patchc.verbs.sign_model import sign_model as sign_model
    from patchc.verbs.status import PatchStatus as PatchStatus
    from patchc.verbs.status import StatusReport as StatusReport
    from patchc.verbs.status import status as status
    from patchc.verbs.sweep import SweepReport as SweepReport
    from patchc.verbs.sweep import sweep as sweep
    from patchc.verbs.updates import FileChange as FileChange
    from patchc.verbs.updates import SideCounts as SideCounts
    from patchc.verbs.updates import UpdateReport as UpdateReport
    from patchc.verbs.verify import VerifyReport as VerifyReport
    from patchc.verbs.verify import verify as verify
    from patchc.verbs.verify_model import VerifyModelReport as VerifyModelReport
    from patchc.verbs.verify_model import verify_model as verify_model
    from patchc.verbs.warm_up import WarmUpReport as WarmUpReport
    from patchc.verbs.warm_up import warm_up as warm_up

_NAMES = {
    "patchc.checkpoint.left_aside": "LeftAside",
    "patchc.derivation.derive_options": "DeriveOptions TuneOptions",
    "patchc.derivation.derive_plan": "DerivePlan",
    "patchc.derivation.direction_report": "DirectionReport",
    "patchc.errors": (
        "AlreadyPatchedError CheckpointError CodeError DeriveError EvaluateError InUseError "
        "MismatchError "
        "MissingCheckpointError MissingConversationsError MissingExtraError MissingInputError "
        "MissingKeyError MissingPatchError MissingRequestsError MissingScoresError "
        "NotPatchedError NumericError OutputError PartlyPatchedError PatchFormatError PatchcError "
        "RankError ResultMismatchError SideFileError SignatureError StorageError UnfixedError "
        "UnsupportedInputError "
        "UnsupportedPatchError UnsupportedSystemError UsageError WrongBaseError"
    ),
    "patchc.evaluation.evaluate_options": "EvaluateOptions",
    "patchc.evaluation.measure": "Evaluation",
    "patchc.evaluation.paired": "Change",
    "patchc.evaluation.rates": "Rate",
    "patchc.evaluation.summary": "ModelSummary ResultsSummary",
    "patchc.evaluation.trials": "Trial",
    "patchc.evaluation.turns": "Together TurnsReport",
    "patchc.fitting.choice": "Candidate",
    "patchc.fitting.fit_options": "FitOptions Limit",
    "patchc.fitting.fitted": "Fitted",
    "patchc.fitting.search": "Range",
    "patchc.fixing.fix": "fix",
    "patchc.fixing.fix_options": "FixOptions",
    "patchc.fixing.fix_report": "Comparison Development Figures FixReport Point",
    "patchc.fixing.split": "SetSplit",
    "patchc.formats": "AdditiveComponent AdditiveValues Patch open_patch",
    "patchc.formats.change_bits": "ChangeBits",
    "patchc.hub_models": "allow_downloads",
    "patchc.landscapes.curves": "Curve CurvePoint HalfWidth Landscape Plane",
    "patchc.landscapes.landscape_options": "LandscapeOptions",
    "patchc.patching.apply_report": "ApplyReport",
    "patchc.patching.code_files": "CodeFile CodeReport",
    "patchc.patching.foreign_names": "NameNote",
    "patchc.patching.left_alone": "SideFile",
    "patchc.patching.merge_options": "MergeReport",
    "patchc.patching.side_files": "SideFileChange",
    "patchc.progress": "Progress ProgressEvent",
    "patchc.recipe": "MergeOverride MergeRecipe Override Recipe read_recipe",
    "patchc.report_page.report": "PageReport report",
    "patchc.selection.compact.holding": "Holding",
    "patchc.signing.policy": "SigningPolicy",
    "patchc.signing.trust": "PolicyAnswer Trust",
    "patchc.signing.check": "CheckedSignature SignatureReport",
    "patchc.verbs.annotate": "AnnotateReport annotate",
    "patchc.verbs.annotation": "Annotation",
    "patchc.verbs.apply": "apply",
    "patchc.verbs.build": "build",
    "patchc.verbs.build_plan": "BuildPlan",
    "patchc.verbs.chain": "ChainReport Link chain",
    "patchc.verbs.derive": "DeriveReport derive",
    "patchc.verbs.diff": "diff",
    "patchc.verbs.evaluate": "EvaluateReport evaluate",
    "patchc.verbs.fit": "FitReport fit",
    "patchc.verbs.fold": "fold",
    "patchc.verbs.inspect": "ChangeCounts InspectReport MaskReport inspect",
    "patchc.verbs.keygen": "KeygenReport keygen",
    "patchc.verbs.model_card": "model_card",
    "patchc.verbs.landscape": "LandscapeReport landscape",
    "patchc.verbs.patch_reports": "BuildReport DiffReport FoldReport PatchReport",
    "patchc.verbs.revert": "revert",
    "patchc.verbs.sign_model": "SignModelReport sign_model",
    "patchc.verbs.sign": "SignReport sign",
    "patchc.verbs.status": "PatchStatus StatusReport status",
    "patchc.verbs.sweep": "SweepReport sweep",
    "patchc.verbs.updates": "FileChange SideCounts UpdateReport",
    "patchc.verbs.verify": "VerifyReport verify",
    "patchc.verbs.verify_model": "VerifyModelReport verify_model",
    "patchc.verbs.warm_up": "WarmUpReport warm_up",
}
"""The public names by the module that has them; the imports above tell them to type checkers."""

_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> object:
    if name == "torch":
        return import_module("patchc.torch")
    if name not in _HOMES:
        raise AttributeError(f"module 'patchc' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "torch"})
