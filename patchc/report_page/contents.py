"""Puts a page together from a patch and what was given beside it."""

from __future__ import annotations

from collections.abc import Sequence

from patchc.report_page.blocks import Page, Text
from patchc.report_page.fitted_scales import scales_of
from patchc.report_page.given import Given
from patchc.report_page.sections.changed_places import places_section
from patchc.report_page.sections.fitting import fitting_section
from patchc.report_page.sections.identity import origin_section, patch_section
from patchc.report_page.sections.objectives import (
    UNPROVEN,
    measurement_of,
    objectives_section,
    verdict_of,
)
from patchc.report_page.sections.patch_turns import turns_section
from patchc.report_page.sections.reply_changes import replies_section
from patchc.report_page.sections.safety_landscape import landscape_section
from patchc.report_page.sections.unknown import missing_parts, unknown_section
from patchc.verbs.inspect import ChangeCounts, InspectReport

_NO_RESULTS = (
    "No results were given: this page says what the patch changes, and not what that does."
)
_ANNOTATED = (
    "From the patch's own annotation, which nothing vouches for; no other results were given."
)


def make_page(
    patch: InspectReport,
    tensors: Sequence[ChangeCounts],
    given: Given,
    title: str | None,
    replies: bool,
) -> Page:
    """Make the page.

    Args:
        patch: the patch.
        tensors: what it changes of each tensor of the model.
        given: results of this patch.
        title: what the page is called; None takes the patch's name, or else its file's.
        replies: whether prompts and replies may be shown.
    """
    measurements = [*(one.test for one in given.fixes), *given.measurements]
    noted = patch.annotation.results
    annotated = [measurement_of(noted)] if noted else []
    found = [
        patch_section(patch),
        origin_section(patch),
        places_section(tensors, scales_of(patch.metadata, [one.name for one in tensors])),
        objectives_section([*measurements, *annotated]),
        fitting_section(given.fixes, given.traces),
        landscape_section(given.landscapes),
        turns_section(given.turns),
        replies_section(given.replies, replies),
    ]
    sections = [one for one in found if one]
    missing = missing_parts(sections)
    told = [one for one in (*measurements, *annotated) if verdict_of(one)]
    verdict = [Text(verdict_of(told[0]) if told else (_NO_RESULTS,))]
    if told and not measurements:
        verdict.append(Text((_ANNOTATED,)))
    if told and not told[0].is_proven:
        verdict.append(Text((UNPROVEN,)))
    return Page(
        title or f"Report on {patch.annotation.name or patch.path.name}",
        verdict,
        [*sections, unknown_section(missing)],
    )
