"""What a caller may choose for an additive patch, and the report on the merge.

Its components are safety enhancement (SE) and over-safety mitigation (OSM).
"""

from __future__ import annotations

from dataclasses import dataclass

from patchc.errors import UnsupportedInputError, UsageError
from patchc.formats import Patch, ValueType

_COMPONENTS = {"alpha": "se", "beta": "osm"}


@dataclass(frozen=True)
class MergeOptions:
    """What the caller of apply may choose for an additive patch.

    Attributes:
        alpha, beta: scales of the components "se" and "osm"; None means the stored ones.
        onto_descendant: accept a model that is not the base, with the same tensors.
    """

    alpha: float | None = None
    beta: float | None = None
    onto_descendant: bool = False


STORED_SCALES = MergeOptions()


@dataclass(frozen=True)
class MergeReport:
    """How an additive patch was merged.

    Attributes:
        value_type: how its values are stored, "bf16" or "int8".
        scales: component name → scale in use.
        onto_descendant: whether a model other than the base was allowed.
        differing_tensors: how many of the model's tensors are not the base's; None in a dry run,
            which does not compare contents.
        first_differing: names of the first of them, at most five.
    """

    value_type: ValueType
    scales: dict[str, float]
    onto_descendant: bool
    differing_tensors: int | None = None
    first_differing: tuple[str, ...] = ()


def plan_merge(patch: Patch, options: MergeOptions) -> MergeReport | None:
    """Choose the scales for an additive patch; None for a patch of exact steps.

    Raises:
        UsageError: an option does not fit the patch, or a scale is not a finite fp32 number.
    """
    given = {key: getattr(options, key) for key in _COMPONENTS if getattr(options, key) is not None}
    if patch.additive is None:
        names = [*given, *(["onto-descendant"] if options.onto_descendant else [])]
        if names:
            raise UsageError(
                f"{patch.path} holds exact steps, into which alpha and beta have gone and which "
                f"fit its base alone: {', '.join(names)} cannot be used; build it with "
                "--values additive for that"
            )
        return None
    from patchc.recipe import checks

    scales = {component.name: component.scale for component in patch.additive.components}
    for key, value in given.items():
        if _COMPONENTS[key] not in scales:
            raise UsageError(
                f"{patch.path} has no component {_COMPONENTS[key]!r} for {key} to scale; it has "
                f"{', '.join(scales)}"
            )
        scales[_COMPONENTS[key]] = checks.scale(key, value)
    return MergeReport(patch.additive.value_type, scales, options.onto_descendant)


def irreversible(patch: Patch) -> UnsupportedInputError:
    """The error for a revert of an additive patch."""
    return UnsupportedInputError(
        f"{patch.path} holds additive values, which cannot be taken back: the rounding of the sum "
        "loses the base. Keep the base model and use that, or build the patch with --values ulp"
    )
