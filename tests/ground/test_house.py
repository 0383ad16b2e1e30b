"""Rules for the files themselves: telling names, and tests of readable length."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
USUAL_NAMES = {"__init__.py", "reference.py", "cpu.py", "triton.py"}
"""A kernel's files bear these names, one per way of computing it."""
MAX_LINES = 400


def test_no_file_name_occurs_more_than_twice() -> None:
    sources = {
        path.resolve()
        for folder in ("patchc", "kernels", "formats")
        for path in (ROOT / folder).rglob("*.py")
    }
    counts = Counter(path.name for path in sources if path.name not in USUAL_NAMES)
    assert len(counts) > 100
    assert {name: count for name, count in counts.items() if count > 2} == {}


def test_no_module_of_the_tests_is_too_long() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in (ROOT / "tests").rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}
