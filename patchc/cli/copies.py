"""The output of ``patchc apply`` and ``patchc revert``."""

from __future__ import annotations

from pathlib import Path

from patchc.cli.file_notes import (
    KEEP,
    print_code,
    print_left_alone,
    print_name_notes,
    print_written,
    side_file_words,
)
from patchc.cli.output import (
    print_facts,
    print_json,
    print_next,
    print_next_without_dry_run,
    size,
    warn,
)
from patchc.cli.trust_options import policy_facts, trust_words
from patchc.cli.voice import voice
from patchc.patching.apply_report import ApplyReport
from patchc.patching.merge_options import MergeReport
from patchc.signing.trust import Trust


def render(
    report: ApplyReport, verb: str, patch: Path, json: bool, trust: Trust, keep_side_files: bool
) -> None:
    """Print the report of an apply or a revert.

    Of files that were left out, a quiet command is warned here; a note has told the others.
    """
    if report.left_out and voice().quiet:
        names = ", ".join(map(str, report.left_out))
        warn(
            f"not copied, since the patch does not cover these weights: {names}; copy them "
            "yourself where the model needs them"
        )
    if json:
        print_json(report)
        return
    if report.in_place:
        _render_in_place(report, verb, patch)
    else:
        _render_copy(report, verb)
    print_left_alone(report.left_alone, verb)
    asked = [*trust_words(trust), *side_file_words(report.left_alone)]
    again = [*trust_words(trust), *([KEEP] if keep_side_files else [])]
    if report.dry_run:
        print_next_without_dry_run()
    elif report.in_place and verb == "apply":
        print_next("revert", patch, report.model, "--in-place", *again, what="to take it back")
    elif not report.merged:  # no model can be recognised as holding additive values
        print_next("verify", patch, report.out or report.model, *asked)


def _changed(report: ApplyReport) -> str:
    return (
        f"{report.changed_words:,} entries in {report.changed_tensors} of {report.tensors} tensors"
    )


def _render_in_place(report: ApplyReport, verb: str, patch: Path) -> None:
    facts: dict[str, object] = {
        "model": report.model,
        "changed": _changed(report),
        "chunks": f"{report.chunks} written ({size(report.nbytes)})",
    }
    if report.chunks_restored:
        facts["restored"] = f"{report.chunks_restored} torn chunks of an interrupted run"
    if report.files:
        facts["files"] = ", ".join(map(str, report.files))
    facts |= policy_facts(report.policies)
    if report.dry_run:
        facts["chunks"] = f"up to {report.chunks} to write ({size(report.nbytes)})"
        facts["checked"] = "names, dtypes, shapes and permissions; contents are checked before"
        print_facts(f"would {verb} in place; nothing was written", facts)
    elif report.left_alone and not report.changed_words:
        print_facts(
            f"{verb}: nothing written; {patch} changes files alone, which a copy (-o) has", facts
        )
    elif not (report.chunks or report.chunks_restored):
        what = "weights are" if report.left_alone else "model is"
        print_facts(f"{verb}: nothing to do, the {what} as asked for", facts)
    else:
        if report.chunks_kept:
            facts["chunks"] = f"{facts['chunks']}, {report.chunks_kept} were done before"
        print_facts(f"{verb}: done in place, every digest as promised", facts)


def _render_copy(report: ApplyReport, verb: str) -> None:
    facts: dict[str, object] = {
        "output": report.out,
        "files": f"{len(report.files)} safetensors ({size(report.nbytes)}), "
        f"{report.side_files} other",
        "changed": _changed(report),
    }
    if report.merged:
        facts |= _merge_facts(report.merged)
    facts |= policy_facts(report.policies)
    if report.dry_run:
        facts["checked"] = "names, dtypes and shapes; contents are checked while writing"
        print_facts(f"would {verb}; nothing was written", facts)
    elif report.merged:
        print_facts(f"{verb}: done; additive values, so no digest of the result is promised", facts)
    else:
        print_facts(f"{verb}: done, every digest as promised", facts)
    print_written(report.written, report.dry_run)
    print_code(report.code)
    print_name_notes(report.name_notes)


def _merge_facts(merged: MergeReport) -> dict[str, object]:
    scales = ", ".join(f"{name} {scale:g}" for name, scale in merged.scales.items())
    facts: dict[str, object] = {"values": f"additive, {merged.value_type}", "scales": scales}
    if merged.differing_tensors is not None:
        names = ", ".join(merged.first_differing)
        more = ", …" if merged.differing_tensors > len(merged.first_differing) else ""
        facts["model"] = (
            f"a descendant; tensors that differ from the base: {merged.differing_tensors} "
            f"({names}{more})"
            if merged.differing_tensors
            else "the base"
        )
    facts["keep"] = "the model: revert cannot take additive values back, and a second apply adds"
    return facts
