"""The verb ``report``: one HTML file on a patch and its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchc.errors import OutputError
from patchc.files import staged_file
from patchc.formats import open_patch
from patchc.formats.container.layout import DEFAULT_CHUNK_BITS
from patchc.output_checks import check_output, check_place
from patchc.paths import PathLike, listed
from patchc.report_page.contents import make_page
from patchc.report_page.given import Given, read_given
from patchc.report_page.measured import Digests
from patchc.report_page.rendering import render
from patchc.report_page.sections.unknown import missing_parts
from patchc.verbs.inspect import InspectReport, count_changes, inspect


@dataclass(frozen=True)
class PageReport:
    """A page that was written.

    Attributes:
        out: the file.
        size: its size in bytes.
        title: what the page is called.
        root: the patch's root digest, in hexadecimal.
        shown: the parts that it has, by their ids in the page.
        missing: the parts that it does not have, because nothing that was given has them.
    """

    out: Path
    size: int
    title: str
    root: str
    shown: tuple[str, ...]
    missing: tuple[str, ...]


def report(
    patch: PathLike,
    results: PathLike | Sequence[PathLike] = (),
    *,
    out: PathLike,
    replies: bool = True,
    title: str | None = None,
) -> PageReport:
    """Write one HTML file on a patch and its results, for who has to approve it.

    The page needs nothing beside itself, and holds no script. The same files give the same bytes.

    Args:
        patch: the patch file.
        results: what was measured with it, recognised by what the files hold: what ``patchc
            evaluate --json`` printed, ``report.json`` of ``fix``, results files of ``evaluate``,
            traces of ``fit``, and landscapes.
        out: the file to write; must not exist.
        replies: whether requests and replies that changed are shown; otherwise only their counts.
        title: what the page is called; None takes the patch's name, or else its file's.

    Raises:
        PatchFormatError, UnsupportedPatchError: the patch cannot be read.
        EvaluateError: a file of results cannot be read, or is none that a page shows.
        MismatchError: results are of another base or another patch.
        OutputError, StorageError: the page cannot be written.
    """
    out, paths = Path(out), listed(results)
    found = inspect(patch)
    check_output(out, (found.path,))
    if out.is_dir():
        raise OutputError(f"output {out} is a folder and a page is a file; name a file")
    given = read_given(paths, _digests(found), replies)
    check_place(out, tuple(paths))
    return _write(found, given, out, replies, title)


def write_page(patch: Path, results: Sequence[Path], out: Path) -> PageReport:
    """Write the page without replies, as :func:`report` does, in place of an earlier one.

    Raises:
        PatchcError: as :func:`report`.
    """
    found = inspect(patch)
    given = read_given(results, _digests(found), keep_replies=False)
    return _write(found, given, out, replies=False, replace=True)


def _write(
    patch: InspectReport,
    given: Given,
    out: Path,
    replies: bool,
    title: str | None = None,
    replace: bool = False,
) -> PageReport:
    with open_patch(patch.path) as opened:
        tensors = count_changes(opened.index)
    page = make_page(patch, tensors, given, title, replies)
    content = render(page).encode()
    with staged_file(out, replace=replace) as staging:
        staging.write_bytes(content)
    shown = tuple(section.name for section in page.sections)
    missing = tuple(one.name for one in missing_parts(page.sections))
    return PageReport(out, len(content), page.title, patch.root, shown, missing)


def _digests(patch: InspectReport) -> Digests:
    """The digests that results must have; those of other chunks than usual cannot be compared."""
    if patch.chunk_words != 1 << DEFAULT_CHUNK_BITS:
        return Digests(patch.root, None, None)
    return Digests(patch.root, patch.base_digest, patch.result_digest)
