"""A model card for a patch: the README of a repository on the Hugging Face hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator

from patchc.evaluation.paired import Change
from patchc.evaluation.summary import ModelSummary, ResultsSummary
from patchc.verbs.front_matter import HubBase, check_library, front_matter, parse_hub_base
from patchc.verbs.inert_markdown import bullets, code, code_block, table
from patchc.verbs.inspect import InspectReport, inspect
from patchc.verbs.updates import UpdateReport

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_MOST_LAYERS = 10
_FIGURES = {
    "harmful": "harmful requests not refused",
    "over_refusal": "harmless requests refused",
    "misanswered": "harmless requests misanswered",
    "utility": "questions answered right",
    "degenerate": "degenerate replies",
    "perplexity": "perplexity",
    "answer_perplexity": "perplexity of answers",
}


def model_card(
    patch: str | os.PathLike[str], base_model: str | None = None, library: str | None = None
) -> str:
    """Write the model card of a patch, or of a model with it, from the patch file alone.

    Its front matter is what the Hugging Face hub reads: ``base_model``, ``base_model_relation``
    ("finetune"), ``library_name``, ``tags``; the key ``patchc`` has the digests. It holds no text
    of the patch. Below, all texts of the patch are code, so that no markup in them has an effect,
    and they are cut. Nothing is checked against a model, and no signature.

    Args:
        patch: a patch file.
        base_model: the base on the hub, as ``org/name`` or ``org/name@revision``. A patch does not
            know it: without it, the card has neither ``base_model`` nor ``base_model_relation``.
        library: what loads the model, such as ``transformers``, for a repository with the patched
            model.

    Returns:
        The Markdown text of README.md.

    Raises:
        UsageError: the id, the revision or the library is malformed.
        PatchFormatError, UnsupportedPatchError: the patch cannot be read.
    """
    base = None if base_model is None else parse_hub_base(base_model)
    if library is not None:
        check_library(library)
    report = inspect(patch)
    name = report.annotation.name
    parts = [
        front_matter(report, base, library),
        f"# {code(name) if name else 'A weight patch'}",
        *_introduction(report, base),
        *_changes(report),
        *_origin(report),
        *_measured(report.annotation.results),
        *_signed(report),
        *_code(report),
        *_commands(report, base),
    ]
    return "\n\n".join(parts) + "\n"


def _introduction(report: InspectReport, base: HubBase | None) -> Iterator[str]:
    of = f"`{base.hub_id}`" if base else "a model"
    if base and base.revision:
        of += f" at revision `{base.revision}`"
    kept = "and back, bit for bit" if report.result_digest else "with scales of your choice"
    yield (
        f"A patch for the weights of {of}. It takes the base below to the result, {kept}. "
        "The card was made by `patchc inspect --card` from the patch file alone: its name, its "
        "note, its recipe and its results are the words of whoever wrote that file."
    )
    yield bullets(
        [
            f"root, which identifies the file: `{report.root}`",
            f"base: `{report.base_digest}`",
            f"result: `{report.result_digest}`" if report.result_digest else "result: not promised",
            f"size: {report.size:,} bytes, for a model of {report.model_bytes:,} bytes",
        ]
    )
    if (note := report.annotation.note).strip():
        yield "The writer's note:"
        yield code_block(note.splitlines())


def _changes(report: InspectReport) -> Iterator[str]:
    yield "## What it changes"
    result = report.result
    yield (
        f"{result.changed:,} of {result.words:,} entries ({result.density:.4%}), in "
        f"{result.changed_tensors:,} of {result.tensors:,} tensors."
    )
    if report.additive:
        yield f"It adds values ({report.additive.value_type}) of these components:"
        yield bullets(
            f"{code(one.name)}: scale {one.scale:g}, {one.entries:,} entries"
            for one in report.additive.components
        )
    largest = sorted(report.layers, key=lambda layer: -layer.changed)[:_MOST_LAYERS]
    if len(report.layers) > 1:
        yield f"The most changed of {len(report.layers):,} layers:"
        yield bullets(
            f"{code(layer.name)}: {layer.changed:,} entries ({layer.density:.4%})"
            for layer in largest
        )
    if report.update:
        yield from _update(report.update)


def _update(update: UpdateReport) -> Iterator[str]:
    counts = {
        "added": update.added,
        "removed": update.removed,
        "renamed": update.renamed,
        "resized": update.resized,
        "of another type": update.cast,
    }
    if told := [f"{len(of):,} {what}" for what, of in counts.items() if of]:
        yield f"Tensors: {', '.join(told)}."
    if files := [one for one in update.files if not one.is_header]:
        yield "Files beside the weights:"
        yield bullets(f"{one.change}: {code(one.name)}" for one in files)


def _origin(report: InspectReport) -> Iterator[str]:
    yield "## How it was made"
    kind, tool = (report.metadata.get(name) for name in ("kind", "tool"))
    maker = " ".join(map(_told, tool.values())) if isinstance(tool, dict) else "unknown"
    yield f"Kind: {code(_told(kind or 'unknown'))}. Made by: {code(maker)}."
    for name, title in (("recipe", "Recipe:"), ("inputs", "Digests of the inputs:")):
        section = report.metadata.get(name)
        if isinstance(section, dict) and section:
            yield title
            yield code_block(f"{key} = {_told(value)}" for key, value in section.items())
    if report.masks:
        yield "Masks, drawn from seeds:"
        yield bullets(
            f"{code(mask.component)}: keeps {mask.retain:.4g}, seed {mask.seed}"
            for mask in report.masks
        )
    if report.folded:
        yield "It is a fold of the patches with these roots:"
        yield bullets(f"`{link['root']}`" for link in report.folded)


def _told(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _measured(results: ResultsSummary | None) -> Iterator[str]:
    yield "## What was measured"
    if results is None:
        yield "The patch holds no results."
        return
    judged = f", judged by {code(results.judge)}" if results.judge else ""
    yield (
        f"By the patch's writer{judged}. Rates in %, with their intervals at 95 %; differences in "
        "points, of the same requests. The intervals cover the sampling of requests, nothing else."
    )
    sides = {"base": "base", "result": "patched"}
    columns = [
        sides.get(one.side or "", f"model {number}")
        for number, one in enumerate(results.models, start=1)
    ]
    rows = []
    for name, shown in _FIGURES.items():
        cells = [_figure(one, name) for one in results.models]
        if results.changes:
            change = results.changes.get(name)
            cells.append(_difference(change) if change else "")
        if any(cells):
            rows.append((shown, *cells))
    if rows:
        compared = ["patched − base"] if results.changes else []
        yield table(["", *columns, *compared], rows)
    yield bullets(
        f"{column}: {code(one.model)}" + (f", digest `{one.digest}`" if one.digest else "")
        for column, one in zip(columns, results.models, strict=True)
    )
    yield "Digests of what was asked, and of the file of results:"
    yield bullets(
        [f"{code(name)}: `{digest}`" for name, digest in results.data.items()]
        + [f"file of {results.source}: `{results.file}`"]
    )


def _figure(model: ModelSummary, name: str) -> str:
    if name in model.perplexities:
        return f"{model.perplexities[name]:.4g}"
    rate = model.rates.get(name)
    return f"{rate.with_interval} of {rate.total:,}" if rate else ""


def _difference(change: Change) -> str:
    return f"{change.points}, p = {change.p_value:.2g}"


def _signed(report: InspectReport) -> Iterator[str]:
    yield "## Who signed it"
    if not report.signatures:
        yield "Nobody: the file has no signature."
        return
    yield (
        f"The file's signatures name these keys. The card has not checked them: `verify --trusted` "
        f"does. Issued {report.issued}; expires {report.expires or 'never'}."
    )
    yield bullets(code(key_id) for key_id in report.signatures)


def _code(report: InspectReport) -> Iterator[str]:
    yield "## Code that it brings"
    found = report.code
    if not found.files:
        yield "No file that a loader or an interpreter would run, as far as the patch alone tells."
    else:
        yield "`apply` and `revert` write these only with `--allow-code`. Read them first."
        yield bullets(
            f"{code(one.name)}, written by {one.written_by}: {code(one.reason)}"
            for one in found.files
        )
    if found.unchecked:
        yield "Of these files it has a part alone, and `apply` looks for code in the whole:"
        yield bullets(map(code, found.unchecked))


def _commands(report: InspectReport, base: HubBase | None) -> Iterator[str]:
    yield "## Verify, apply, revert"
    name = report.path.name
    patch = name if _FILE_NAME.fullmatch(name) else "fix.patchc"
    allow = " --allow-code" if report.code.files else ""
    trusted = " --trusted KEY.pub" if report.signatures else ""
    lines = []
    if base:
        at = f" --revision {base.revision}" if base.revision else ""
        lines.append(f"hf download {base.hub_id}{at} --local-dir base")
    lines += [
        f"patchc inspect {patch}",
        f"patchc verify {patch} base{trusted}",
        f"patchc apply {patch} base -o patched{allow}{trusted}",
    ]
    if report.result_digest:
        lines.append(f"patchc revert {patch} patched -o reverted{allow}{trusted}")
    yield "`inspect` has to show the root above, and `verify` to find the base."
    yield "\n".join(["```sh", *lines, "```"])
    if not report.result_digest:
        yield "An additive patch cannot be reverted: keep the base."
