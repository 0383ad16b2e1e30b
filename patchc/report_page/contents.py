"""Puts a page together from a patch and what was given beside it."""

from __future__ import annotations

from patchc.report_page.blocks import Page, Text
from patchc.report_page.given import Given
from patchc.report_page.sections.identity import origin_section, patch_section
from patchc.report_page.sections.objectives import (
    measurement_of,
    objectives_section,
    verdict_of,
)
from patchc.verbs.inspect import InspectReport

_NO_RESULTS = (
    "No results were given: this page says what the patch changes, and not what that does."
)
_ANNOTATED = (
    "From the patch's own annotation, which nothing vouches for; no other results were given."
)


def make_page(patch: InspectReport, given: Given, title: str | None, replies: bool) -> Page:
    """Make the page.

    Args:
        patch: the patch.
        given: results of this patch.
        title: what the page is called; None takes the patch's name, or else its file's.
        replies: whether prompts and replies may be shown.
    """
    measurements = [*(one.test for one in given.fixes), *given.measurements]
    noted = patch.annotation.results
    annotated = [measurement_of(noted)] if noted else []
    sections = [
        patch_section(patch),
        origin_section(patch),
        objectives_section([*measurements, *annotated]),
    ]
    told = [one for one in (*measurements, *annotated) if verdict_of(one)]
    verdict = [Text(verdict_of(told[0]) if told else (_NO_RESULTS,))]
    if told and not measurements:
        verdict.append(Text((_ANNOTATED,)))
    return Page(
        title or f"Report on {patch.annotation.name or patch.path.name}",
        verdict,
        [section for section in sections if section],
    )
