"""Files of results from which an evaluation goes on."""

from __future__ import annotations

from pathlib import Path

from fuzzing.mutation.plain_text import mutate_lines
from fuzzing.target import Target, expect, written
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.requests import Request, RequestSets
from patchc.evaluation.results import ResultLine, open_results

SETS = RequestSets(*((Request("here", ({"role": "user", "content": one},)),) for one in "ab"))
OPTIONS = EvaluateOptions()
LINE = ResultLine("0" * 64, "harmful", "1" * 32, "a", "No.", "refused")


def seed() -> bytes:
    """A file with one line."""
    path = written("seed.jsonl", b"")
    with open_results(path, SETS, OPTIONS) as results:
        results.add(LINE)
    return path.read_bytes()


def read(data: bytes) -> None:
    """Read a file of results and add a line; the rest of the file stays."""
    path: Path = written("results.jsonl", data)
    with open_results(path, SETS, OPTIONS) as results:
        before = results.all()
        results.add(LINE)
    with open_results(path, SETS, OPTIONS) as results:
        expect(results.all()[: len(before)] == before, "a line is lost")
        expect(LINE.request in {one.request for one in results.all()}, "a line was not added")


TARGET = Target(
    "results",
    read,
    mutate_lines,
    ("patchc.evaluation.results", "patchc.evaluation.journal"),
    executions=1000,
)
