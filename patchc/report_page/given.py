"""The results that a page is made from: recognised by what they hold, and checked to be of a patch.

They may be a stranger's. Each is plain JSON or lines of it, of bounded size, and is read whole or
refused with its file and line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchc.errors import EvaluateError, MismatchError
from patchc.evaluation.journal import is_header
from patchc.evaluation.results import RESULTS
from patchc.json_lines import MOST_LINE_BYTES, read_data
from patchc.landscapes.curves import Landscape
from patchc.landscapes.findings import read_landscape
from patchc.landscapes.lines import LANDSCAPE
from patchc.report_page.changed_replies import ReplyFile, read_reply_file
from patchc.report_page.fit_trace import FitTrace, read_trace
from patchc.report_page.fix_results import FixResults, read_fix
from patchc.report_page.measured import Digests, Measurement, check_models, read_evaluation
from patchc.report_page.turn_results import TurnResults, read_turns
from patchc.strict_json import UNFIT, parse_json, why_unfit

_MOST_REPORT = 64 << 20
_FIT = "fit"
_KNOWN = (
    "a page takes what `patchc evaluate --json` printed, with --turns too; report.json of `patchc "
    "fix`; a results file of `patchc evaluate -o`; a trace of `patchc fit`; and what `patchc "
    "landscape -o` wrote"
)


@dataclass
class Given:
    """What was given beside the patch, by what it is; landscapes with their files' names."""

    measurements: list[Measurement] = field(default_factory=list)
    fixes: list[FixResults] = field(default_factory=list)
    replies: list[ReplyFile] = field(default_factory=list)
    traces: list[FitTrace] = field(default_factory=list)
    turns: list[TurnResults] = field(default_factory=list)
    landscapes: list[tuple[str, Landscape]] = field(default_factory=list)


def read_given(paths: Sequence[Path], own: Digests, keep_replies: bool) -> Given:
    """Read files of results of one patch.

    Args:
        paths: the files; of equal ones, the first counts.
        own: the digests of the patch.
        keep_replies: whether prompts and replies are kept.

    Raises:
        EvaluateError: a file cannot be read, is damaged, or holds nothing that a page can show.
        MismatchError: one is of another base or another patch.
    """
    given, known = Given(), set[bytes]()
    for path in paths:
        content = read_data(path, EvaluateError, "cannot read")
        # The same results twice would look like two measurements that agree.
        if (same := hashlib.sha256(content).digest()) in known:
            continue
        known.add(same)
        first = content[:MOST_LINE_BYTES].partition(b"\n")[0]
        try:
            header = parse_json(first)
        except ValueError:
            header = None
        if isinstance(header, dict) and is_header(header, str(header.get("kind"))):
            _take_lines(given, path, header, content[len(first) + 1 :], own, keep_replies)
        else:
            _take_report(given, path, content, own)
    return given


def _take_report(given: Given, path: Path, content: bytes, own: Digests) -> None:
    if len(content) > _MOST_REPORT:
        raise EvaluateError(f"{path}: it has more than {_MOST_REPORT:,} bytes; {_KNOWN}")
    try:
        report = parse_json(content)
        if not isinstance(report, dict) or "judge" not in report:
            raise ValueError("it is no report")
        if "development" in report:
            given.fixes.append(read_fix(report, path.name, own))
            return
        measured = read_evaluation(report, path.name, own)
        turns = report.get("turns") and read_turns(report["turns"], path.name)
    except UNFIT as error:
        raise EvaluateError(
            f"{path}: no results that a page shows ({why_unfit(error)}); {_KNOWN}"
        ) from error
    if measured:
        given.measurements.append(measured)
    if turns:
        if own.root not in turns.roots:
            raise MismatchError(f"{path}: turns of other patches; name a patch of that chain")
        given.turns.append(turns)


def _read_landscape(path: Path, own: Digests) -> Landscape:
    found = read_landscape(path)
    check_models(path.name, own, found.base_digest, "")
    if found.patch_root not in (own.root, None):
        raise MismatchError(
            f"{path}: a landscape with another patch, whose root is {found.patch_root}; leave the "
            "file out, or name that patch"
        )
    return found


def _take_lines(
    given: Given, path: Path, header: dict[str, Any], rest: bytes, own: Digests, keep: bool
) -> None:
    kind, inputs = header["kind"], header["inputs"]
    lines = _Lines(rest)
    try:
        if kind == RESULTS:
            given.replies.append(read_reply_file(lines, path.name, inputs, own, keep))
        elif kind == _FIT:
            given.traces.append(read_trace(lines, path.name, inputs, own))
        elif kind == LANDSCAPE:
            given.landscapes.append((path.name, _read_landscape(path, own)))
        else:
            raise EvaluateError(
                f"{path}: a file of kind {kind!r:.40}, which no page shows; {_KNOWN}"
            )
    except UNFIT as error:
        raise EvaluateError(
            f"{path}:{lines.number}: not a line of {kind} results ({why_unfit(error)}); leave the "
            "file out, or make it again"
        ) from error


class _Lines:
    """The values of a journal's lines after the first; one that a kill cut short is left out.

    Attributes:
        number: of the line that was read last.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.number = 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        whole = self._content[: self._content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.split(b"\n")[:-1], start=2):
            self.number = number
            if len(line) > MOST_LINE_BYTES:
                raise ValueError(f"it has more than {MOST_LINE_BYTES:,} bytes")
            value = parse_json(line)
            if not isinstance(value, dict):
                raise TypeError("it is no JSON object")
            yield value
