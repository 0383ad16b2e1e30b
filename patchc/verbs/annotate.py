"""Put a name, a note and measured results into a patch."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from patchc.errors import MismatchError, OutputError, UsageError
from patchc.files import staged_file
from patchc.formats import Patch, open_patch, write_with_metadata
from patchc.formats.container.layout import DEFAULT_CHUNK_BITS
from patchc.output_checks import check_output, check_space
from patchc.patching.model_of_patch import names_beside
from patchc.verbs.annotation import Annotation, annotation_of


@dataclass(frozen=True)
class AnnotateReport:
    """An annotated patch.

    Attributes:
        out: the patch that was written.
        root: its root digest, in hexadecimal.
        old_root: that of the patch that it was made from.
        size: its size in bytes.
        annotation: what it says now.
        signatures_dropped: how many signatures the old file had; they are of its root digest, and
            so not in the new one.
    """

    out: Path
    root: str
    old_root: str
    size: int
    annotation: Annotation
    signatures_dropped: int = 0


def annotate(
    patch: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    name: str | None = None,
    note: str | None = None,
    results: str | os.PathLike[str] | None = None,
) -> AnnotateReport:
    """Write a patch again with a name, a note and measured results in its metadata.

    The changes, and the digests of base and result, are the same bytes: it applies, reverts and
    verifies as before. Its root digest, which identifies the file, is a new one; so signatures of
    the old file are left out.

    Args:
        patch: the patch file, which stays as it is.
        out: the patch file to write; must not exist.
        name: what it is called; "" removes the name, None leaves it.
        note: what there is to say; "" removes the note, None leaves it.
        results: what ``patchc evaluate --json`` printed, the results file of ``evaluate``, or the
            ``report.json`` of ``fix``; its rates with their intervals and the digests of the data
            are stored, and no reply. "" removes what is stored, None leaves it.

    Raises:
        UsageError: nothing is asked for, or a text cannot be stored.
        EvaluateError: ``results`` is no such file.
        MismatchError: the results are not those of this patch.
        PatchFormatError, UnsupportedPatchError: the patch is damaged or not readable.
        UnsupportedInputError: the patch's metadata would be larger than the format allows.
        OutputError, StorageError: the patch cannot be written.
    """
    if name is None and note is None and results is None:
        raise UsageError(
            "annotate has nothing to change; give --name, --note or --results, or '' to remove one"
        )
    out = Path(out)
    with open_patch(patch) as opened:
        check_output(out, (opened.path,))
        if out.is_dir():
            raise OutputError(f"output {out} is a folder and a patch is a file; name a file")
        check_space(out, opened.size)
        annotation = annotation_of(opened.metadata).with_texts(name, note)
        annotation = _with_results(annotation, opened, results)
        opened.check_bodies()
        metadata = annotation.in_metadata(opened.metadata)
        with staged_file(out) as staging, staging.open("wb") as file:
            root = write_with_metadata(opened, file, metadata)
            size = file.tell()
        dropped = len(opened.signatures.signatures) if opened.signatures else 0
        return AnnotateReport(out, root.hex(), opened.root.hex(), size, annotation, dropped)


def _with_results(
    annotation: Annotation, patch: Patch, results: str | os.PathLike[str] | None
) -> Annotation:
    if results is None:
        return annotation
    if not os.fspath(results):
        return replace(annotation, results=None)
    from patchc.evaluation.summary import read_summary

    summary = read_summary(Path(results))
    # Reports have digests over chunks of the default size, and of the files alone that are the
    # model; an additive patch promises none.
    by_chunks = not patch.additive and patch.chunk_words == 1 << DEFAULT_CHUNK_BITS
    if by_chunks and not names_beside(patch):
        index = patch.index
        own = summary.of_patch(index.base_digest.hex(), index.result_digest.hex())
        if own is None:
            raise MismatchError(
                f"{results}: no results of a model with {patch.path}, whose result has digest "
                f"{index.result_digest.hex()}; name results that were measured with this patch"
            )
        summary = own
    return replace(annotation, results=summary)
