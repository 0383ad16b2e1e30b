"""A pytest plugin that counts outcomes by file, and writes them after each test.

``pytest -p gpu.pytest_figures --figures FILE``; a run that is killed leaves what it had counted.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from figures import Figures

OUTCOMES = ("passed", "failed", "skipped", "errors")


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--figures", type=Path, help="a JSON file for the outcomes")


def pytest_configure(config: Any) -> None:
    # Workers of pytest-xdist report to the process that started them, which counts.
    if config.getoption("figures") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Counted(config))


class _Counted:
    """The table "tests", by file and in all, and the table "not passed"."""

    def __init__(self, config: Any) -> None:
        device = "cuda" if config.getoption("markexpr") == "gpu" else "cpu"
        self._figures = Figures(config.getoption("figures"), device)
        self._counts: dict[str, Counter[str]] = {}
        self._uncollected: set[str] = set()

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or not report.passed:
            broke = report.failed and report.when != "call"
            self._count(report, "errors" if broke else report.outcome)

    def pytest_collectreport(self, report: Any) -> None:
        # Every worker collects, so each failure comes several times.
        if report.failed and report.nodeid not in self._uncollected:
            self._uncollected.add(report.nodeid)
            self._count(report, "errors")

    def _count(self, report: Any, outcome: str) -> None:
        for name in (report.nodeid.partition("::")[0], "all"):
            counts = self._counts.setdefault(name, Counter())
            counts[outcome] += 1
            self._figures.add("tests", name, **{kind: counts[kind] for kind in OUTCOMES})
        if report.failed:
            message = (report.longreprtext.strip() or "no message").splitlines()[-1]
            self._figures.add("not passed", report.nodeid, message=message[:300])
